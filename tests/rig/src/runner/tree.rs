//! A process with all that came of it, and where each of them is, as `/proc` has it.

use crate::process::Identity;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Threads of a process that are told of.
const THREADS_MAX: usize = 40;
/// Characters of a command line that are shown.
const WORDS_MAX: usize = 240;

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub identity: Identity,
    /// How far below the first one.
    pub depth: usize,
}

impl Member {
    /// The program that it runs; empty where that can't be told.
    pub fn program(&self) -> PathBuf {
        let link = fs::read_link(format!("/proc/{}/exe", self.identity.pid)).unwrap_or_default();
        // Of a file that was replaced meanwhile.
        let text = link.to_string_lossy();
        text.strip_suffix(" (deleted)").map_or_else(|| link.clone(), PathBuf::from)
    }
    /// The last part of that.
    pub fn name(&self) -> String {
        let program = self.program();
        program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
    /// Its command line.
    pub fn words(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.identity.pid)).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }
    /// Whether it runs tests: what cargo has built for that, or rustdoc with those in comments.
    pub fn runs_tests(&self) -> bool {
        let program = self.program();
        program.parent().is_some_and(|folder| folder.ends_with("deps"))
            || program.file_name().is_some_and(|name| name == "rustdoc")
    }
    /// The file behind its `Test`s, without the hash that cargo gives it.
    pub fn test_name(&self) -> String {
        let name = self.name();
        name.rsplit_once('-').map_or(name.clone(), |(front, _)| front.to_owned())
    }
    /// Names of its threads but the first one, which libtest calls as the tests that they run: 15
    /// characters of them.
    pub fn threads(&self) -> Vec<String> {
        let pid = self.identity.pid;
        let others = tasks(pid).into_iter().filter(|task| *task != pid);
        others.map(|task| read(pid, task, "comm")).collect()
    }
    /// One line for it, and one for each thread: its state, where in the kernel it sleeps, and in
    /// which call.
    pub fn explain(&self) -> Vec<String> {
        let pid = self.identity.pid;
        let indent = "  ".repeat(self.depth);
        let words: String = self.words().join(" ").chars().take(WORDS_MAX).collect();
        let mut lines = vec![format!("{indent}{pid} {words}")];
        let tasks = tasks(pid);
        for task in tasks.iter().take(THREADS_MAX) {
            lines.push(format!("{indent}    {}", explain_task(pid, *task)));
            lines.extend(kernel_stack(pid, *task).iter().map(|at| format!("{indent}        {at}")));
        }
        if tasks.len() > THREADS_MAX {
            lines.push(format!("{indent}    and {} threads more", tasks.len() - THREADS_MAX));
        }
        lines
    }
}

/// The process of this number and all below it, parents first.
pub(super) fn below(pid: i32) -> Vec<Member> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().parse().ok();
        if let Some((child, parent)) = number.and_then(|child| Some((child, parent_of(child)?))) {
            children.entry(parent).or_default().push(child);
        }
    }
    let (mut members, mut waiting) = (Vec::new(), vec![(pid, 0)]);
    while let Some((pid, depth)) = waiting.pop() {
        let Some(identity) = Identity::of(pid) else { continue };
        members.push(Member { identity, depth });
        let below = children.remove(&pid).unwrap_or_default();
        waiting.extend(below.into_iter().rev().map(|child| (child, depth + 1)));
    }
    members
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

fn tasks(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut tasks: Vec<i32> =
        entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    tasks.sort_unstable();
    tasks
}

fn read(pid: i32, task: i32, what: &str) -> String {
    let path = Path::new("/proc").join(format!("{pid}/task/{task}/{what}"));
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn explain_task(pid: i32, task: i32) -> String {
    let stat = read(pid, task, "stat");
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
    let sleeps = read(pid, task, "wchan");
    let sleeps = if sleeps.is_empty() || sleeps == "0" { "-" } else { &sleeps };
    let call = call(&read(pid, task, "syscall"));
    format!("{task} {:<15} {state} {sleeps} {call}", read(pid, task, "comm"))
}

/// Where the machine lets us see it.
fn kernel_stack(pid: i32, task: i32) -> Vec<String> {
    let stack = read(pid, task, "stack");
    stack.lines().map(|line| line.trim_start_matches("[<0>] ").to_owned()).collect()
}

/// The calls in which programs wait, by name; what else there is by its number.
fn call(line: &str) -> String {
    /// As x86-64 numbers them.
    const NAMES: &[(&str, &str)] = &[
        ("0", "read"),
        ("1", "write"),
        ("7", "poll"),
        ("23", "select"),
        ("35", "nanosleep"),
        ("42", "connect"),
        ("43", "accept"),
        ("45", "recvfrom"),
        ("47", "recvmsg"),
        ("61", "wait4"),
        ("73", "flock"),
        ("128", "rt_sigtimedwait"),
        ("202", "futex"),
        ("230", "clock_nanosleep"),
        ("232", "epoll_wait"),
        ("247", "waitid"),
        ("270", "pselect6"),
        ("271", "ppoll"),
        ("281", "epoll_pwait"),
        ("288", "accept4"),
    ];
    let number = line.split(' ').next().unwrap_or_default();
    let named = NAMES.iter().find(|(known, _)| cfg!(target_arch = "x86_64") && *known == number);
    match named {
        Some((_, name)) => (*name).to_owned(),
        None if number.is_empty() => String::new(),
        None => format!("syscall {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_children_and_where_they_wait() {
        let mut child =
            std::process::Command::new("sh").args(["-c", "sleep 600; true"]).spawn().unwrap();
        let own = std::process::id().cast_signed();
        let begun = std::time::Instant::now();
        let told = loop {
            let members = below(own);
            let found = members.iter().find(|member| member.words() == ["sleep", "600"]);
            if let Some(sleep) = found.filter(|_| members[0].identity.pid == own) {
                let lines = sleep.explain();
                if lines[1].contains("nanosleep") {
                    assert_eq!(sleep.depth, 2);
                    break lines;
                }
            }
            assert!(begun.elapsed().as_secs() < 20, "{members:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        assert!(
            told[0].ends_with("sleep 600") && told[1].contains("sleep           S"),
            "{told:?}"
        );
        assert!(below(own)[0].runs_tests());
        assert_eq!(below(own)[0].test_name(), "rig");
        for member in below(child.id().cast_signed()) {
            let pid = nix::unistd::Pid::from_raw(member.identity.pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        crate::command::reap(&mut child).unwrap();
    }
}
