// What the browser tests share: a Weir that runs, and a Chromium beside it.
'use strict';

const { spawn } = require('node:child_process');
const { chromium } = require('playwright-core');

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--mute-audio',
];

// Starts `weir` with these arguments on free ports; `base` is its address, once it listens.
function start(binary, args) {
  const child = spawn(binary, [...args, '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1' },
  });
  let log = '';
  const base = new Promise((resolve, reject) => {
    const read = (text) => {
      log += text;
      const found = /listening on (http:\/\/[\d.]+:\d+)/.exec(log);
      if (found) resolve(found[1]);
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.on('exit', (code) => reject(new Error(`weir ${args[0]} ended with ${code}:\n${log}`)));
    setTimeout(() => reject(new Error(`weir ${args[0]} printed no address:\n${log}`)), 20_000).unref();
  });
  const stop = () => {
    child.removeAllListeners('exit');
    child.kill('SIGTERM');
  };
  return { base, log: () => log, stop };
}

// Has `visit` do its work with a Weir and a browser; what goes wrong ends the process with 1 and is shown with the log.
async function withBrowser(binary, args, flags, visit) {
  const weir = start(binary, args);
  let browser;
  try {
    const base = await weir.base;
    const executablePath = process.env.WEIR_CHROMIUM || '/usr/bin/chromium';
    browser = await chromium.launch({ executablePath, args: [...FLAGS, ...flags] });
    await visit(base, browser, weir.log);
  } catch (error) {
    console.error(`${error.stack}\n--- weir ${args[0]} ---\n${weir.log()}`);
    process.exitCode = 1;
  } finally {
    if (browser) await browser.close();
    weir.stop();
  }
}

module.exports = { withBrowser };
