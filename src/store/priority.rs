//! Threads that yield to the cores: how much of a processor they get beside others, and how long they keep it.
//!
//! Linux gives each thread a nice value of its own (sched(7)). A thread with a high one gets little, but keeps what it
//! was let in for: a slice of up to some milliseconds, which a core that wakes meanwhile has to wait for. Since Linux
//! 6.12 a thread may ask for shorter slices (sched_setattr(2)); older kernels take no notice.
//! Must not know what threads do.

#![allow(unsafe_code)]

use std::io;

/// Of threads that somebody who is being served waits for.
const NICE: i32 = 10;
/// Of those that nobody waits for: they take what is left.
const NICE_BACKGROUND: i32 = 19;
/// The shortest that the kernel grants.
const SLICE_NS: u64 = 100_000;

/// The calling thread yields to the cores.
pub fn lower() -> io::Result<()> {
    Ok(rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE)?)
}

/// The calling thread must not be felt by anybody: it yields to those that were lowered, too, and soon.
pub fn background() -> io::Result<()> {
    if brief_slices(NICE_BACKGROUND) {
        return Ok(());
    }
    Ok(rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE_BACKGROUND)?)
}

/// Asks for short slices at this nice value; false where that is refused.
fn brief_slices(nice: i32) -> bool {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes of the live local as its size says; 0 is the calling thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;
    use std::thread;

    #[test]
    fn threads_get_nice_values_of_their_own() {
        let nice = || getpriority_process(Some(rustix::thread::gettid())).expect("of this thread");
        let after = |lower: fn() -> io::Result<()>| {
            thread::spawn(move || lower().map(|()| nice())).join().expect("no panic").expect("to lower is no privilege")
        };
        let before = nice();
        // A test that runs at a lower priority cannot get back to this one.
        if before <= NICE {
            assert_eq!(after(lower), NICE);
        }
        assert_eq!(after(background), NICE_BACKGROUND);
        assert_eq!(nice(), before, "of other threads nothing changes");
    }
}
