// A player per video and per live stream, started by a click (a browser has six connections to a host), and a jump to a
// timecode.
"use strict";

// A live stream: HLS where the browser has it, else one endless body, which only MP4 can be.
function source(article) {
  const { file, hls, container } = article.dataset;
  if (!hls) return file;
  if (document.createElement("video").canPlayType("application/vnd.apple.mpegurl")) return hls;
  return container === "ts" ? null : file;
}

function play(article) {
  let video = article.querySelector("video");
  const src = source(article);
  if (!src) {
    const text = document.createElement("p");
    text.textContent = "This browser has no HLS, and cannot play MPEG-TS without it.";
    article.querySelector(".still").replaceChildren(text);
    return null;
  }
  if (!video) {
    video = document.createElement("video");
    video.controls = true;
    video.playsInline = true;
    video.preload = "none";
    video.src = src;
    if (article.dataset.hls) video.addEventListener("error", () => setTimeout(() => again(article, video), 2000));
    article.querySelector(".still").replaceChildren(video);
    article.classList.add("open");
  }
  return video;
}

// A stream that has just begun has too few segments for some browsers.
function again(article, video) {
  video.src = source(article);
  video.play().catch(() => {});
}

function say(article, text, wrong) {
  const output = article.querySelector("output");
  output.textContent = text;
  output.classList.toggle("wrong", wrong);
}

async function jump(article, timecode) {
  const answer = await fetch(article.dataset.seek + "?timecode=" + encodeURIComponent(timecode));
  const found = await answer.json();
  if (!answer.ok) {
    say(article, found.detail, true);
    return;
  }
  const video = play(article);
  // The middle of the frame: its start, rounded to a double, may belong to the frame before.
  const [num, den] = (found.frame_rate || "50/1").split("/").map(Number);
  video.currentTime = found.presentation_time + den / num / 2;
  video.preload = "auto";
  say(article, `${found.timecode} is frame ${found.frame}, ${found.time} s`, false);
}

// A video whose coding Weir does not decode has no poster.
for (const poster of document.querySelectorAll(".still img")) {
  const hide = () => poster.classList.add("missing");
  poster.addEventListener("error", hide);
  if (poster.complete && poster.naturalWidth === 0) {
    hide();
  }
}

for (const article of document.querySelectorAll("article")) {
  article.querySelector(".still button")?.addEventListener("click", () => play(article)?.play());
  article.querySelector("form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    jump(article, new FormData(event.target).get("timecode")).catch((error) => say(article, String(error), true));
  });
}
