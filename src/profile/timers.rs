//! Timers on the CPU time of threads. The kernel looks at them at its tick (250 times a second by default) and tells
//! with each signal how many periods went by, so a thread's samples add up to its CPU time at any rate.
//!
//! Not one timer for the process: its signals go to whichever thread is easiest to interrupt, and are dropped when
//! several cores are busy. It must not know what a sample is.
#![allow(unsafe_code, reason = "timers and signal handlers have no safe wrapper")]

use super::slot;
use super::stack::{self, FRAMES_MAX};
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// `struct siginfo_t` of a signal that a timer sent (sigaction(2)); libc has no name for the overrun.
#[repr(C)]
struct TimerSignal {
    number: c_int,
    error: c_int,
    code: c_int,
    /// What follows is a union that is aligned like a pointer.
    _align: c_int,
    timer: c_int,
    overrun: c_int,
    value: *mut c_void,
}

/// The profile that runs; signals of timers of an earlier one are ignored.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
const SLOT_BITS: u32 = slot::SLOTS_MAX.trailing_zeros();

/// Makes the signals of this profile count, and those of earlier ones not.
pub fn begin(profile: usize) {
    RUNNING.store(profile, Relaxed);
}

/// Installs the handler, once and for ever: a signal that comes late would otherwise end the process.
pub fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: the action is plain data; the handler is safe in a signal: see there.
        let done = unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(libc::SIGPROF, &action, ptr::null_mut())
        };
        if done == 0 { Ok(()) } else { Err(last_error()) }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Takes a sample of the thread that it interrupts: no lock, no allocation; `errno` is as it was.
extern "C" fn on_signal(_: c_int, signal: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid signal and the interrupted context; with SI_TIMER the signal is a timer's.
    let (signal, context) = unsafe { (&*signal.cast::<TimerSignal>(), &*context.cast::<libc::ucontext_t>()) };
    if signal.code != libc::SI_TIMER {
        return;
    }
    let value = signal.value as usize;
    if value >> SLOT_BITS != RUNNING.load(Relaxed) {
        return;
    }
    let Some(slot) = slot::find(value & (slot::SLOTS_MAX - 1)) else { return };
    let mut stack = [0; FRAMES_MAX];
    let depth = stack::walk(stack::interrupted(context), &mut stack);
    let weight = u64::from(signal.overrun.max(0).cast_unsigned()) + 1;
    slot.push(weight, super::marks::here(), &stack[..depth]);
}

/// A timer on the CPU time of one thread of this process.
pub struct Timer(libc::timer_t);

// SAFETY: a number that names the timer in the kernel.
unsafe impl Send for Timer {}

impl Timer {
    /// Signals `thread` after `first`, then after each `period` of its CPU time, in the name of a profile and slot.
    pub fn new(thread: i32, first: Duration, period: Duration, profile: usize, slot: usize) -> io::Result<Self> {
        let mut timer = MaybeUninit::<libc::timer_t>::uninit();
        // SAFETY: the event is plain data that outlives the call; the timer is written when it succeeds.
        let timer = unsafe {
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGPROF;
            event.sigev_notify_thread_id = thread;
            event.sigev_value.sival_ptr = ptr::without_provenance_mut(profile << SLOT_BITS | slot);
            if libc::timer_create(cpu_clock(thread), &mut event, timer.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Self(timer.assume_init())
        };
        let times = libc::itimerspec { it_interval: timespec(period), it_value: timespec(first) };
        // SAFETY: the timer exists, the times are plain data.
        if unsafe { libc::timer_settime(timer.0, 0, &times, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made by `timer_create`, deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// The clock of a thread's CPU time, as the kernel numbers it (clock_getcpuclockid(3) is for processes only).
fn cpu_clock(thread: i32) -> libc::clockid_t {
    const PER_THREAD: i32 = 4;
    const SCHEDULED: i32 = 2;
    (!thread << 3) | PER_THREAD | SCHEDULED
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec { tv_sec: duration.as_secs() as libc::time_t, tv_nsec: duration.subsec_nanos() as libc::c_long }
}

/// CPU time of the process so far.
pub fn process_cpu() -> Duration {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of a thread of this process so far; zero when it has ended.
pub fn thread_cpu(thread: i32) -> Duration {
    read_clock(cpu_clock(thread))
}

fn read_clock(clock: libc::clockid_t) -> Duration {
    let mut time = timespec(Duration::ZERO);
    // SAFETY: the time is plain data.
    let done = unsafe { libc::clock_gettime(clock, &mut time) };
    if done == 0 { Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32) } else { Duration::ZERO }
}
