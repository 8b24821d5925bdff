//! The call stack of the running thread, walked by frame pointers. Callable from a signal handler and from the
//! allocator: no lock, no allocation, no system call, and no load outside the thread's stack and the program's own
//! image. It must not know why it is asked.
#![allow(unsafe_code, reason = "a stack is read where it lies")]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Frames of a stack at most; the outermost are left out.
pub const FRAMES_MAX: usize = 96;
/// No thread's stack is larger; more would be a stack that is not the thread's own.
const STACK_BYTES_MAX: usize = 256 << 20;
/// How far above the stack pointer a library's frames may keep the address that they return to.
const LIBRARY_FRAMES_BYTES: usize = 4 << 10;

/// Where a thread is.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    pub pc: usize,
    pub sp: usize,
    pub fp: usize,
}

/// A run of addresses that is set once.
struct Range {
    start: AtomicUsize,
    end: AtomicUsize,
}

impl Range {
    const fn new() -> Self {
        Self { start: AtomicUsize::new(0), end: AtomicUsize::new(0) }
    }

    fn contains(&self, address: usize) -> bool {
        self.start.load(Relaxed) <= address && address < self.end.load(Relaxed)
    }
}

/// Segments of the program's own image that are loaded.
static SEGMENTS: [Range; 8] = [const { Range::new() }; 8];
/// The one of them that holds code.
static CODE: Range = Range::new();
/// The first thread's stack ends below this.
static FIRST_STACK_END: AtomicUsize = AtomicUsize::new(0);

/// Learns where the program lies in memory. Called once, early; before, stacks are one frame deep.
pub fn prepare() {
    // SAFETY: the callback reads the headers that it is given and writes atomics.
    unsafe { libc::dl_iterate_phdr(Some(learn), std::ptr::null_mut()) };
    // The name that the program was executed by stands above the first thread's frames (elf(5), getauxval(3)).
    // SAFETY: has no precondition.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) };
    FIRST_STACK_END.store(usize::try_from(name).unwrap_or(0), Relaxed);
}

/// The first object is the program; the others are its libraries.
unsafe extern "C" fn learn(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader gives a valid object with `dlpi_phnum` headers.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    for (segment, header) in SEGMENTS.iter().zip(loaded) {
        let start = base + header.p_vaddr as usize;
        let end = start + header.p_memsz as usize;
        segment.start.store(start, Relaxed);
        segment.end.store(end, Relaxed);
        if header.p_flags & libc::PF_X != 0 {
            CODE.start.store(start, Relaxed);
            CODE.end.store(end, Relaxed);
        }
    }
    1
}

/// Writes the stack, its leaf first, and gives its depth. Callers stand as the last byte of their call, so that each
/// address lies in the function it belongs to.
#[inline]
pub fn walk(at: Registers, stack: &mut [u64; FRAMES_MAX]) -> usize {
    let end = stack_end(at.sp);
    let mut frames = Frames { stack, depth: 0 };
    frames.push(at.pc);
    let (mut fp, mut low) = (at.fp, at.sp);
    if !CODE.contains(at.pc) {
        if let Some(bridge) = leave_library(at, end) {
            frames.push(bridge.caller - 1);
            (fp, low) = (bridge.fp, bridge.slot);
        }
    } else if let Some(slot) = frameless(at)
        && let Some(caller) = load(slot, at.sp, end).filter(|&caller| follows_a_call(caller))
    {
        frames.push(caller - 1);
    }
    // Each frame is [caller's frame pointer, return address], and its caller's is above it.
    while frames.depth < FRAMES_MAX && fp >= low && fp.is_multiple_of(8) {
        let (Some(next), Some(caller)) = (load(fp, low, end), load(fp.wrapping_add(8), low, end)) else { break };
        if !follows_a_call(caller) {
            break;
        }
        frames.push(caller - 1);
        if next <= fp {
            break;
        }
        // `fp` was loaded from, so it is no address at the very end.
        (low, fp) = (fp + 16, next);
    }
    frames.depth
}

struct Frames<'a> {
    stack: &'a mut [u64; FRAMES_MAX],
    depth: usize,
}

impl Frames<'_> {
    fn push(&mut self, address: usize) {
        if let Some(frame) = self.stack.get_mut(self.depth) {
            *frame = address as u64;
            self.depth += 1;
        }
    }
}

/// The end of the stack in which `sp` lies. A thread's control block stands at the top of its stack, in the same
/// mapping; the first thread's is elsewhere.
fn stack_end(sp: usize) -> usize {
    let is_end = |end: &usize| *end > sp && *end - sp < STACK_BYTES_MAX;
    let ends = [thread_pointer(), FIRST_STACK_END.load(Relaxed)];
    ends.into_iter().find(is_end).unwrap_or(sp)
}

/// A word of the stack.
#[inline]
fn load(address: usize, low: usize, end: usize) -> Option<usize> {
    if address < low || !address.is_multiple_of(8) || address.checked_add(8)? > end {
        return None;
    }
    // SAFETY: aligned, and between the stack pointer and the end of the stack: mapped for the thread's life.
    Some(unsafe { std::ptr::with_exposed_provenance::<usize>(address).read_volatile() })
}

/// A byte of the program's code.
fn code(address: usize) -> Option<u8> {
    if !CODE.contains(address) {
        return None;
    }
    // SAFETY: in the program's code segment, which is never unmapped.
    Some(unsafe { std::ptr::with_exposed_provenance::<u8>(address).read() })
}

/// How a stack goes on above a library.
struct Bridge {
    /// Where the library returns to.
    caller: usize,
    /// The stack's place of `caller`.
    slot: usize,
    /// The frame pointer of the function that called the library.
    fp: usize,
}

/// Libraries are built without frame pointers: searches the stack for the address that the first of them returns to.
/// Only what follows an instruction that calls out of the program is one.
fn leave_library(at: Registers, end: usize) -> Option<Bridge> {
    let limit = end.min(at.sp.saturating_add(LIBRARY_FRAMES_BYTES));
    let aligned = at.sp.next_multiple_of(8);
    for slot in (aligned..limit).step_by(8) {
        let caller = load(slot, aligned, end)?;
        if !follows_a_call_out(caller) {
            continue;
        }
        // The library keeps the frame pointer, or has saved it on its way.
        let is_frame = |fp: usize| {
            let above = fp > slot && fp.is_multiple_of(16);
            above && load(fp.wrapping_add(8), slot, end).is_some_and(follows_a_call)
        };
        let saved = (aligned..slot).step_by(8).filter_map(|place| load(place, aligned, end));
        let fp = std::iter::once(at.fp).chain(saved).find(|&fp| is_frame(fp));
        return Some(Bridge { caller, slot, fp: fp.unwrap_or(0) });
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use super::{Registers, SEGMENTS, code};
    use std::arch::asm;

    pub(super) fn thread_pointer() -> usize {
        let pointer: usize;
        // SAFETY: the thread control block begins with its own address (System V ABI, TLS variant II).
        unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags)) };
        pointer
    }

    /// Where the return address stands when the function has no frame at this instruction.
    pub(super) fn frameless(at: Registers) -> Option<usize> {
        match (code(at.pc)?, code(at.pc + 1)?, code(at.pc + 2)?) {
            // push rbp, not yet done; ret.
            (0x55, ..) | (0xc3, ..) => Some(at.sp),
            // mov rbp, rsp, not yet done.
            (0x48, 0x89, 0xe5) => Some(at.sp.wrapping_add(8)),
            _ => None,
        }
    }

    /// Whether an instruction that calls ends at this address of the program.
    pub(super) fn follows_a_call(address: usize) -> bool {
        let byte = |back: usize| code(address.wrapping_sub(back));
        let calls = |length: usize| byte(length) == Some(0xff) && byte(length - 1).is_some_and(|m| m & 0x38 == 0x10);
        byte(5) == Some(0xe8) || calls(6) || calls(2) || calls(3) || calls(7)
    }

    /// Whether the call that ends at this address goes to a library: through the table of imported functions, or
    /// through a register.
    pub(super) fn follows_a_call_out(address: usize) -> bool {
        let byte = |back: usize| code(address.wrapping_sub(back));
        let word = |at: usize| Some(i32::from_le_bytes([code(at)?, code(at + 1)?, code(at + 2)?, code(at + 3)?]));
        let relative = || Some(address.wrapping_add_signed(word(address.wrapping_sub(4))? as isize));
        if (byte(6), byte(5)) == (Some(0xff), Some(0x15)) {
            return relative().is_some_and(is_import);
        }
        if byte(5) == Some(0xe8) {
            // To a stub, which jumps through the table.
            let Some(stub) = relative() else { return false };
            let jump = if code(stub) == Some(0xf3) { stub + 4 } else { stub };
            return code(jump) == Some(0xff) && code(jump + 1) == Some(0x25);
        }
        byte(2) == Some(0xff) && byte(1).is_some_and(|m| m & 0xf8 == 0xd0)
    }

    /// Whether this slot of the program's data holds an address outside of the program.
    fn is_import(slot: usize) -> bool {
        let inside = |address: usize| SEGMENTS.iter().any(|segment| segment.contains(address));
        if !slot.is_multiple_of(8) || !inside(slot) || !inside(slot + 7) {
            return false;
        }
        // SAFETY: aligned, and in a loaded segment of the program.
        let target = unsafe { std::ptr::with_exposed_provenance::<usize>(slot).read_volatile() };
        target != 0 && !inside(target)
    }

    /// Where the caller of this is.
    #[inline(always)]
    pub(in crate::profile) fn here() -> Registers {
        let (pc, sp, fp): (usize, usize, usize);
        // SAFETY: reads three registers.
        unsafe {
            asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) pc, out(reg) sp, out(reg) fp,
                options(nomem, nostack, preserves_flags));
        }
        Registers { pc, sp, fp }
    }

    /// Where a signal interrupted the thread.
    pub(in crate::profile) fn interrupted(context: &libc::ucontext_t) -> Registers {
        let register = |number: libc::c_int| context.uc_mcontext.gregs[number as usize] as usize;
        Registers { pc: register(libc::REG_RIP), sp: register(libc::REG_RSP), fp: register(libc::REG_RBP) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use super::{CODE, Registers};
    use std::arch::asm;

    pub(super) fn thread_pointer() -> usize {
        let pointer: usize;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
        pointer
    }

    /// Leaves keep their return address in a register, which is not looked at.
    pub(super) fn frameless(_: Registers) -> Option<usize> {
        None
    }

    pub(super) fn follows_a_call(address: usize) -> bool {
        address.is_multiple_of(4) && CODE.contains(address.wrapping_sub(4))
    }

    /// Libraries are built with frame pointers here.
    pub(super) fn follows_a_call_out(_: usize) -> bool {
        false
    }

    /// Where the caller of this is.
    #[inline(always)]
    pub(in crate::profile) fn here() -> Registers {
        let (pc, sp, fp): (usize, usize, usize);
        // SAFETY: reads three registers.
        unsafe {
            asm!("adr {}, .", "mov {}, sp", "mov {}, x29", out(reg) pc, out(reg) sp, out(reg) fp,
                options(nomem, nostack, preserves_flags));
        }
        Registers { pc, sp, fp }
    }

    /// Where a signal interrupted the thread.
    pub(in crate::profile) fn interrupted(context: &libc::ucontext_t) -> Registers {
        let machine = &context.uc_mcontext;
        Registers { pc: machine.pc as usize, sp: machine.sp as usize, fp: machine.regs[29] as usize }
    }
}

use arch::{follows_a_call, follows_a_call_out, frameless, thread_pointer};
pub(in crate::profile) use arch::{here, interrupted};

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[inline(never)]
    fn depth_of(calls: usize) -> usize {
        if calls == 0 {
            return walk(here(), &mut [0; FRAMES_MAX]);
        }
        black_box(depth_of(calls - 1))
    }

    #[test]
    fn each_call_is_a_frame() {
        prepare();
        let outermost = depth_of(0);
        assert!(outermost > 4, "a test runs under several functions: {outermost}");
        assert_eq!(depth_of(7), outermost + 7);
        assert_eq!(depth_of(2000), FRAMES_MAX);
    }

    #[test]
    fn garbage_is_not_followed() {
        prepare();
        let here = here();
        for fp in [0, 1, 8, here.sp - 4096, here.sp + 3, usize::MAX, usize::MAX - 7, here.pc] {
            let depth = walk(Registers { fp, ..here }, &mut [0; FRAMES_MAX]);
            assert!(depth <= 2, "{fp:#x}: {depth}");
        }
        let depth = walk(Registers { pc: 8, sp: 8, fp: 8 }, &mut [0; FRAMES_MAX]);
        assert_eq!(depth, 1);
    }
}
