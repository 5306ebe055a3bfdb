//! The program that is PID 1 where ecsd needs one of its own: static, without libc, a few kilobytes.
//! `build.rs` compiles it by itself, the agent carries it (`containerd::init`) and bind-mounts it.
//!
//! ```text
//!   docker-init -- program args   PID 1 of a container with initProcessEnabled: tini's semantics
//!   pause                         holds the namespaces that the containers of a task share
//! ```
//! The role is in the name by which it is called. As init it runs the program in a process group of its
//! own, in the foreground of the terminal where there is one; passes every signal on; reaps whatever is
//! left to it; and ends with the program's exit code, 128 and the signal's number where one killed it,
//! 127 where there is no such program, 126 where it may not be run. `TINI_SUBREAPER` and
//! `TINI_KILL_PROCESS_GROUP` mean what they mean to tini. As holder it reaps, and ends with 0 on SIGTERM
//! and SIGINT.
//!
//! Nothing is allocated, and nothing is written to but the stack: some pages are all that it costs. It is
//! the one place with `unsafe` code: for system calls, and for the arguments that the kernel lays on the
//! stack.

#![no_std]
#![no_main]
// Without it a loop that copies bytes becomes a call of memcpy, which there is none of.
#![no_builtins]

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod arch;

use arch::number;
use core::mem::MaybeUninit;

const ENOENT: isize = 2;
const EINTR: isize = 4;
const ENXIO: isize = 6;
const ENOEXEC: isize = 8;
const EBADF: isize = 9;
const EACCES: isize = 13;
const ENOTDIR: isize = 20;
const ENOTTY: isize = 25;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;
/// Signals that tell of a fault of this very process, and the two of a terminal, which are ignored.
/// By number: ILL, TRAP, ABRT, BUS, FPE, SEGV, TTIN, TTOU, SYS.
const NOT_FORWARDED: [i32; 9] = [4, 5, 6, 7, 8, 11, SIGTTIN, SIGTTOU, 31];

const SIG_SETMASK: usize = 2;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const WNOHANG: usize = 1;
const TIOCSPGRP: usize = 0x5410;
const PR_SET_CHILD_SUBREAPER: usize = 36;

/// As the kernel has it; the same on both architectures.
#[repr(C)]
struct SignalAction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// What the kernel laid on the stack: argument and environment strings, each list ended by null.
struct Start {
    arguments: *const *const u8,
    environment: *const *const u8,
}

/// Where both architectures' `_start` comes to.
///
/// # Safety
/// `stack` is the stack pointer that the kernel started the process with.
#[unsafe(no_mangle)]
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: the kernel lays argc, argc pointers, null, the environment's pointers, null.
    let start = unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast::<*const u8>();
        Start { arguments, environment: arguments.add(count + 1) }
    };
    let code = match base_name(argument(&start, 0)) {
        b"pause" => pause(),
        _ => init(&start),
    };
    exit(code)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(1)
}

// === the holder ===

fn pause() -> i32 {
    let awaited = mask_of(&[SIGCHLD, SIGINT, SIGTERM]);
    set_mask(awaited);
    loop {
        match wait_signal(awaited) {
            SIGINT | SIGTERM => return 0,
            _ => while reap().is_some() {},
        }
    }
}

// === init ===

fn init(start: &Start) -> i32 {
    let first = if argument(start, 1) == b"--" { 2 } else { 1 };
    if argument(start, first).is_empty() || argument(start, 1) == b"--version" {
        say(&[b"ecsd-init: called as docker-init: [--] program [arguments]; called as pause: holds namespaces\n"]);
        return i32::from(argument(start, 1) != b"--version");
    }
    if variable(start, b"TINI_SUBREAPER").is_some() {
        syscall(number::PRCTL, [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]);
    }
    let forwarded = !mask_of(&NOT_FORWARDED);
    let before = set_mask(forwarded);
    // A child that ends must stay to be waited for, and a terminal must not stop us.
    let actions = [(SIGCHLD, SIG_DFL), (SIGTTIN, SIG_IGN), (SIGTTOU, SIG_IGN)];
    let saved = actions.map(|(signal, handler)| (signal, set_handler(signal, handler)));
    let child = syscall(number::CLONE, [SIGCHLD as usize, 0, 0, 0, 0]);
    if child < 0 {
        say(&[b"[FATAL docker-init] fork failed: ", words(child), b"\n"]);
        return 1;
    }
    if child == 0 {
        if !take_foreground() {
            return 1;
        }
        for (signal, handler) in saved {
            set_handler(signal, handler);
        }
        set_mask(before);
        return become_program(start, first);
    }
    let group = variable(start, b"TINI_KILL_PROCESS_GROUP").is_some();
    supervise(child, if group { -child } else { child }, forwarded)
}

/// Passes signals on and reaps until the child has ended; answers the code to end with.
fn supervise(child: isize, target: isize, forwarded: u64) -> i32 {
    loop {
        let signal = wait_signal(forwarded);
        if signal != SIGCHLD {
            // It may have ended just now: nobody is left to be told.
            syscall(number::KILL, [target as usize, signal as usize, 0, 0, 0]);
        }
        let mut ended = None;
        while let Some((pid, code)) = reap() {
            if pid == child {
                ended = Some(code);
            }
        }
        if let Some(code) = ended {
            return code;
        }
    }
}

/// The child's own process group, in the foreground of the terminal on standard input. Where there is no
/// terminal that is fine; where it can't be had, not.
fn take_foreground() -> bool {
    syscall(number::SETPGID, [0, 0, 0, 0, 0]);
    let group = syscall(number::GETPID, [0; 5]) as i32;
    let answer = syscall(number::IOCTL, [0, TIOCSPGRP, (&raw const group) as usize, 0, 0]);
    let fine = answer >= 0 || matches!(-answer, ENOTTY | ENXIO | EBADF);
    if !fine {
        say(&[b"[FATAL docker-init] tcsetpgrp failed: ", words(answer), b"\n"]);
    }
    fine
}

/// Becomes the program; answers the exit code where that failed.
fn become_program(start: &Start, first: usize) -> i32 {
    let program = argument(start, first);
    let mut failed = -ENOENT;
    if program.contains(&b'/') {
        failed = execute(start, first, program);
    } else {
        let path = variable(start, b"PATH").unwrap_or(b"/usr/local/bin:/bin:/usr/bin");
        let mut joined = MaybeUninit::<[u8; 4096]>::uninit();
        for directory in path.split(|byte| *byte == b':') {
            let Some(candidate) = join(&mut joined, directory, program) else { continue };
            match execute(start, first, candidate) {
                error if -error == EACCES => failed = error,
                error if matches!(-error, ENOENT | ENOTDIR) => {}
                error => {
                    failed = error;
                    break;
                }
            }
        }
    }
    say(&[b"[FATAL docker-init] exec ", program, b" failed: ", words(failed), b"\n"]);
    match -failed {
        ENOENT => 127,
        EACCES => 126,
        _ => 1,
    }
}

/// execve; a script without an interpreter is given to the shell, as execvp(3) does. `path` is followed
/// by a NUL. Comes back with the error only.
fn execute(start: &Start, first: usize, path: &[u8]) -> isize {
    // SAFETY: `first` is at most the number of arguments.
    let arguments = unsafe { start.arguments.add(first) };
    let execve = |path: *const u8, arguments: *const *const u8| {
        syscall(number::EXECVE, [path as usize, arguments as usize, start.environment as usize, 0, 0])
    };
    let error = execve(path.as_ptr(), arguments);
    if -error != ENOEXEC {
        return error;
    }
    let shell = b"/bin/sh\0".as_ptr();
    // SAFETY: `first` is 1 or 2, so there is an argument before the program's name; the list is on our
    // own stack, and this process is to become another anyway.
    unsafe {
        arguments.sub(1).cast_mut().write(shell);
        arguments.cast_mut().write(path.as_ptr());
        execve(shell, arguments.sub(1))
    }
}

/// `directory/name` and a NUL; an empty directory is the current one.
fn join<'a>(into: &'a mut MaybeUninit<[u8; 4096]>, directory: &[u8], name: &[u8]) -> Option<&'a [u8]> {
    let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
    let length = directory.len() + slash.len() + name.len();
    if length >= 4096 {
        return None;
    }
    let begin = into.as_mut_ptr().cast::<u8>();
    let bytes = directory.iter().chain(slash).chain(name).chain(b"\0");
    for (at, byte) in bytes.enumerate() {
        // SAFETY: `at` is at most `length`, which is below the size.
        unsafe { begin.add(at).write(*byte) };
    }
    // SAFETY: so many bytes were written just now.
    Some(unsafe { core::slice::from_raw_parts(begin, length) })
}

// === what the compiler calls, which libc has otherwise ===

/// As memcmp(3).
///
/// # Safety
/// Both are that long.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    for at in 0..length {
        // SAFETY: within both.
        let difference = unsafe { i32::from(*one.add(at)) - i32::from(*other.add(at)) };
        if difference != 0 {
            return difference;
        }
    }
    0
}

/// As memcpy(3).
///
/// # Safety
/// Both are that long, and apart.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(into: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: within both.
        unsafe { *into.add(at) = *from.add(at) };
    }
    into
}

/// As memset(3).
///
/// # Safety
/// It is that long.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(into: *mut u8, byte: i32, length: usize) -> *mut u8 {
    for at in 0..length {
        // SAFETY: within it.
        unsafe { *into.add(at) = byte as u8 };
    }
    into
}

/// Named by the compiled core library; nothing is ever unwound.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

// === arguments, environment, words ===

/// An argument; empty where there are fewer.
fn argument(start: &Start, index: usize) -> &[u8] {
    // SAFETY: a list of strings ended by null, as the kernel lays it.
    unsafe {
        for at in 0..=index {
            if (*start.arguments.add(at)).is_null() {
                return b"";
            }
        }
        string(*start.arguments.add(index))
    }
}

/// The value of a variable of the environment.
fn variable<'a>(start: &'a Start, name: &[u8]) -> Option<&'a [u8]> {
    let mut at = start.environment;
    loop {
        // SAFETY: a list of strings ended by null, as the kernel lays it.
        let line = unsafe {
            if (*at).is_null() {
                return None;
            }
            string(*at)
        };
        if let Some(value) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
            return Some(value);
        }
        // SAFETY: this one was not the null at the end.
        at = unsafe { at.add(1) };
    }
}

/// # Safety
/// `begin` is a string with a NUL at its end that lives as long as the process.
unsafe fn string<'a>(begin: *const u8) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: up to the NUL, all of it is the string's.
    unsafe {
        while *begin.add(length) != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(begin, length)
    }
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// strerror(3) of those that people see.
fn words(error: isize) -> &'static [u8] {
    match -error {
        ENOENT => b"No such file or directory",
        ENOEXEC => b"Exec format error",
        EACCES => b"Permission denied",
        ENOTDIR => b"Not a directory",
        1 => b"Operation not permitted",
        7 => b"Argument list too long",
        11 => b"Resource temporarily unavailable",
        12 => b"Cannot allocate memory",
        21 => b"Is a directory",
        40 => b"Too many levels of symbolic links",
        _ => b"the kernel refuses",
    }
}

fn say(parts: &[&[u8]]) {
    for part in parts {
        syscall(number::WRITE, [2, part.as_ptr() as usize, part.len(), 0, 0]);
    }
}

// === the kernel ===

fn mask_of(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// Blocks these signals and no others; answers what was blocked before.
fn set_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    let (new, old) = ((&raw const mask) as usize, (&raw mut before) as usize);
    syscall(number::RT_SIGPROCMASK, [SIG_SETMASK, new, old, 8, 0]);
    before
}

/// Answers the handler from before: what a process inherits is the default or to ignore.
fn set_handler(signal: i32, handler: usize) -> usize {
    let new = SignalAction { handler, flags: 0, restorer: 0, mask: 0 };
    let mut old = SignalAction { handler: SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    let (new, before) = ((&raw const new) as usize, (&raw mut old) as usize);
    syscall(number::RT_SIGACTION, [signal as usize, new, before, 8, 0]);
    old.handler
}

/// The next of these (blocked) signals, however long that takes.
fn wait_signal(mask: u64) -> i32 {
    loop {
        match syscall(number::RT_SIGTIMEDWAIT, [(&raw const mask) as usize, 0, 0, 8, 0]) {
            error if -error == EINTR => {}
            signal => return signal as i32,
        }
    }
}

/// A child that has ended, with the exit code that stands for its end.
fn reap() -> Option<(isize, i32)> {
    let mut status = 0_i32;
    let pid = syscall(number::WAIT4, [usize::MAX, (&raw mut status) as usize, WNOHANG, 0, 0]);
    let signal = status & 0x7f;
    let code = if signal == 0 { status >> 8 & 0xff } else { 128 + signal };
    (pid > 0).then_some((pid, code))
}

fn exit(code: i32) -> ! {
    loop {
        syscall(number::EXIT_GROUP, [code as usize, 0, 0, 0, 0]);
    }
}

fn syscall(number: usize, arguments: [usize; 5]) -> isize {
    // SAFETY: every caller passes what the call takes: numbers, null, and pointers to what outlives it.
    unsafe { arch::syscall(number, arguments) }
}
