//! The page of the benchmarks: the last result of each as bars drawn to scale, and a button that runs it.

use crate::bench::job::Jobs;
use crate::bench::report::{Figures, time};
use crate::bench::{Benchmark, Report};
use crate::http::page::escape;
use std::fmt::Write;

/// Bars beyond this ratio are drawn on a logarithmic scale: beside a copy a slice would be no pixel wide.
const LINEAR_RATIO_MAX: f64 = 50.0;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:1.5rem auto;padding:0 1rem;color:#1d2733}\
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .1rem}p{margin:.15rem 0}.shows{color:#5b6876}\
table{border-collapse:collapse;width:100%;margin:.4rem 0}td{padding:.12rem .5rem .12rem 0;vertical-align:middle}\
td.name{width:12rem}td.time{width:11rem;white-space:nowrap;font-variant-numeric:tabular-nums}\
.bar{background:#2f6f9f;height:.85rem;border-radius:2px;min-width:1px}\
button{font:inherit;padding:.1rem .6rem;margin:.2rem 0}\
pre{background:#f2f4f6;padding:.5rem;overflow:auto;margin:.3rem 0}\
@media(prefers-color-scheme:dark){body{background:#14181d;color:#dfe5ea}.shows{color:#93a0ad}.bar{background:#5aa2d6}\
pre{background:#1e242b}}";

/// Posts, shows what comes as it comes, then loads the page anew.
const SCRIPT: &str = "\
for(const b of document.querySelectorAll('button'))b.onclick=async()=>{\
const out=b.parentElement.querySelector('pre');out.hidden=false;out.textContent='';b.disabled=true;\
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
            let _ = write!(html, "<p class=shows>measured {age} s ago, load {:.2}", report.host.load);
            for line in report.implied.iter().chain(&report.warnings) {
                let _ = write!(html, "<p>{}", escape(line));
            }
        }
        None => html.push_str("<p>not measured yet"),
    }
    let _ = writeln!(html, "<p><button data-name=\"{name}\">run</button><pre hidden></pre></section>");
}

fn bars(html: &mut String, report: &Report) {
    let times = || report.alternatives.iter().map(|figures| figures.best_ns);
    let (least, most) = times().fold((f64::INFINITY, 0.0f64), |(least, most), ns| (least.min(ns), most.max(ns)));
    let logarithmic = most > least * LINEAR_RATIO_MAX;
    html.push_str("<table>");
    for figures in &report.alternatives {
        let share = share(figures, least, most, logarithmic) * 100.0;
        let (name, time) = (escape(&figures.name), time(figures.best_ns));
        let title = format!("{} loops, best of {}", figures.loops, figures.repeat);
        let _ = write!(
            html,
            "<tr title=\"{title}\"><td class=name>{name}<td class=time>{time}\
             <td><div class=bar style=\"width:{share:.1}%\"></div>"
        );
    }
    html.push_str("</table>");
    if logarithmic {
        html.push_str("<p class=shows>bars on a logarithmic scale: each tenth part of the longest time is as long");
    }
}

/// How much of the longest bar this one is. On the logarithmic scale the shortest is a tenth of a power of ten long.
fn share(figures: &Figures, least: f64, most: f64, logarithmic: bool) -> f64 {
    if most <= 0.0 {
        return 0.0;
    }
    if !logarithmic {
        return figures.best_ns / most;
    }
    let from = |ns: f64| (ns / least).log10() + 0.1;
    from(figures.best_ns) / from(most)
}
