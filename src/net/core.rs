//! One thread and one `current_thread` runtime per core. Tasks never move between cores.
#![allow(unsafe_code, reason = "sched_setaffinity has no safe wrapper")]

use std::future::Future;
use std::io;
use std::thread::{self, JoinHandle};
use tokio::runtime::Handle;

/// Tasks polled between two looks at the sockets. Streams that end their turn are ready again at once, so with tokio's
/// 61 a new request would wait for 61 turns of other connections.
const EVENT_INTERVAL: u32 = 4;

/// Running cores; each ends when its task does.
pub struct Cores {
    threads: Vec<JoinHandle<()>>,
    runtimes: Vec<(String, Handle)>,
}

impl Cores {
    /// Starts a thread per task, each with a runtime of its own, pinned to CPU n if asked.
    pub fn start<F>(name: &str, pin: bool, tasks: Vec<impl FnOnce() -> F + Send + 'static>) -> io::Result<Self>
    where
        F: Future<Output = ()>,
    {
        let (mut threads, mut runtimes) = (Vec::with_capacity(tasks.len()), Vec::with_capacity(tasks.len()));
        for (number, task) in tasks.into_iter().enumerate() {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()?;
            runtimes.push((format!("{name}{number}"), runtime.handle().clone()));
            let thread = thread::Builder::new().name(format!("weir-{name}{number}")).spawn(move || {
                if pin {
                    pin_to(number);
                }
                runtime.block_on(task());
                // Blocking work that is still running must not hold up the exit.
                runtime.shutdown_background();
            })?;
            threads.push(thread);
        }
        Ok(Self { threads, runtimes })
    }

    /// The name of each core and its runtime.
    pub fn runtimes(&self) -> impl Iterator<Item = (String, Handle)> {
        self.runtimes.iter().cloned()
    }

    /// Waits for all of them; false when one panicked.
    pub fn join(self) -> bool {
        self.threads.into_iter().all(|thread| thread.join().is_ok())
    }
}

/// Raises the limit of open files to what the system allows, as a socket and a file are one each: login shells and
/// service managers start with 1024. Returns the limit, if there is one.
pub fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

fn pin_to(cpu: usize) {
    // SAFETY: the set is plain data on this stack frame; pid 0 is the calling thread.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu % libc::CPU_SETSIZE as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if done != 0 {
        tracing::warn!(cpu, error = %io::Error::last_os_error(), "pin a core's thread");
    }
}
