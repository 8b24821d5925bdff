//! The page of the benchmarks: the last result of each as bars drawn to scale, and a button that runs it.

use crate::bench::job::Jobs;
use crate::bench::report::{Figures, digits, time};
use crate::bench::{Benchmark, Report};
use crate::http::page::escape;
use std::fmt::Write;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:1.5rem auto;padding:0 1rem;color:#1d2733}\
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .1rem}p{margin:.15rem 0}.shows{color:#5b6876}\
table{border-collapse:collapse;width:100%;margin:.4rem 0}td{padding:.12rem .5rem .12rem 0;vertical-align:middle}\
td.name{width:12rem}td.time{width:6.5rem;white-space:nowrap;font-variant-numeric:tabular-nums}\
.bar{background:#2f6f9f;height:.85rem;border-radius:2px;min-width:1px}\
button{font:inherit;padding:.1rem .6rem;margin:.2rem 0}\
pre{background:#f2f4f6;padding:.5rem;overflow:auto;margin:.3rem 0}\
@media(prefers-color-scheme:dark){body{background:#14181d;color:#dfe5ea}.shows{color:#93a0ad}.bar{background:#5aa2d6}\
pre{background:#1e242b}}";

/// Posts, shows what comes as it comes, then loads the page anew.
const SCRIPT: &str = "\
for(const b of document.querySelectorAll('button'))b.onclick=async()=>{\
const out=b.closest('section').querySelector('pre');out.hidden=false;out.textContent='';b.disabled=true;\
const r=await fetch('/debug/bench/'+b.dataset.name,{method:'POST'});\
if(!r.ok){const p=await r.json();out.textContent=p.detail;b.disabled=false;return}\
const d=r.body.pipeThrough(new TextDecoderStream()).getReader();\
for(;;){const{done,value}=await d.read();if(done)break;out.textContent+=value}\
location.hash=b.dataset.name;location.reload()};";

pub(super) fn page(jobs: &Jobs) -> String {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Benchmarks</title><style>{STYLE}</style><h1>Benchmarks</h1>\
         <p>Measured in this process, one at a time, by the rules of timeit: the best of 5 repeats counts.\n"
    );
    for benchmark in jobs.benchmarks() {
        section(&mut html, benchmark, jobs);
    }
    let _ = writeln!(html, "<script>{SCRIPT}</script></html>");
    html
}

fn section(html: &mut String, benchmark: &Benchmark, jobs: &Jobs) {
    let (name, question, shows) = (benchmark.name, escape(benchmark.question), escape(benchmark.shows));
    let _ = write!(html, "<section id=\"{name}\"><h2>{name}: {question}</h2><p class=shows>{shows}");
    match jobs.last(name) {
        Some((report, at)) => {
            bars(html, &report);
            let age = at.elapsed().as_secs();
            html.push_str("<p class=shows>");
            if benchmark.size.allowed.start() < benchmark.size.allowed.end() {
                let _ = write!(html, "{} {}, ", report.size, escape(benchmark.size.what));
            }
            let _ = write!(html, "measured {age} s ago, load {:.2}", report.host.load);
            for line in &report.implied {
                let _ = write!(html, "<p>{}", escape(line));
            }
            for line in &report.warnings {
                let _ = write!(html, "<p>warning: {}", escape(line));
            }
        }
        None => html.push_str("<p>not measured yet"),
    }
    let _ = writeln!(html, "<p><button data-name=\"{name}\">run</button><pre hidden></pre></section>");
}

/// Bars to scale: beside a copy, a slice is a line.
fn bars(html: &mut String, report: &Report) {
    let times = || report.alternatives.iter().map(|figures| figures.best_ns);
    let (least, most) = times().fold((f64::INFINITY, 0.0f64), |(least, most), ns| (least.min(ns), most.max(ns)));
    html.push_str("<table>");
    for Figures { name, loops, repeat, best_ns, .. } in &report.alternatives {
        let share = if most > 0.0 { best_ns / most * 100.0 } else { 0.0 };
        let (name, time, factor) = (escape(name), time(*best_ns), digits(best_ns / least));
        let _ = write!(
            html,
            "<tr title=\"{loops} loops, best of {repeat}\"><td class=name>{name}<td class=time>{time}\
             <td class=time>{factor} \u{d7}<td><div class=bar style=\"width:{share:.2}%\"></div>"
        );
    }
    html.push_str("</table>");
}
