//! What can be known of processes that stand still, before they are ended.

use super::tree::{self, Member};
use crate::admin::SOCKET_VARIABLE;
use crate::command::finish;
use crate::instance;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a gateway is asked, each for [`ANSWER_PATIENCE`] at most.
const QUESTIONS: [&[&str]; 3] = [&["status"], &["show", "workers"], &["show", "drops"]];
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Time that a Go program gets to write down its stacks.
const STACKS_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of them that are read.
const STACKS_MAX: u64 = 8 << 20;
/// Programs written in Go, all of which are `tests/cluster` or what takes its place.
const GO: [&str; 4] = ["cluster", "kube-apiserver", "etcd", "kubectl"];

/// All processes below this one, and those recorded with instances of theirs whose parents have
/// ended.
pub(super) fn members(pid: i32) -> Vec<Member> {
    let mut members = tree::below(pid);
    let owners: Vec<_> = members.iter().map(|member| member.identity).collect();
    for orphan in instance::recorded_of(&owners) {
        for member in tree::below(orphan.pid) {
            if member.identity.is_alive()
                && !members.iter().any(|known| known.identity == member.identity)
            {
                members.push(member);
            }
        }
    }
    members
}

/// Where each of them is. Go programs among them end by that.
pub(super) fn explain(members: &[Member]) -> Vec<String> {
    let mut lines = vec!["where each of its processes is:".to_owned()];
    lines.extend(members.iter().flat_map(Member::explain));
    // Asked before anything is disturbed.
    for gateway in members.iter().filter(|member| member.name() == "headgate") {
        lines.extend(ask(gateway));
    }
    let mut programs: Vec<&Member> = members.iter().filter(|member| is_go(member)).collect();
    // What isn't Kubernetes' own comes first: it is where faults are likely, and not all is printed.
    programs.sort_by_key(|program| program.words().get(1).is_none_or(|role| role != "kubelets"));
    lines.extend(programs.into_iter().flat_map(stacks));
    lines
}

/// Its echo servers are many, and wait for packets.
fn is_go(member: &Member) -> bool {
    GO.contains(&&*member.name()) && member.words().get(1).is_none_or(|role| role != "echo")
}

/// What a gateway says of itself.
fn ask(gateway: &Member) -> Vec<String> {
    let Some(socket) = socket(&gateway.words()) else { return Vec::new() };
    let mut lines = Vec::new();
    for question in QUESTIONS {
        lines.push(format!("headgate {}, of {}:", question.join(" "), gateway.identity.pid));
        let mut command = Command::new(gateway.program());
        command.args(question).env(SOCKET_VARIABLE, &socket).env("NO_COLOR", "1");
        match finish(&mut command, ANSWER_PATIENCE) {
            Ok(said) => {
                let text = [said.stdout, said.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                lines.extend(text.lines().map(|line| format!("    {line}")));
            }
            Err(error) => lines.push(format!("    {error:#}")),
        }
    }
    lines
}

/// The admin socket that its configuration names.
fn socket(words: &[String]) -> Option<PathBuf> {
    let at = words.iter().position(|word| word == "--config")?;
    let text = fs::read_to_string(words.get(at + 1)?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("socket"))?;
    line.split('"').nth(1).map(PathBuf::from)
}

/// SIGQUIT makes a Go program write the stacks of all goroutines to its standard error, and end.
fn stacks(program: &Member) -> Vec<String> {
    let Member { identity, .. } = *program;
    let role = program.words().get(1).cloned().unwrap_or_default();
    let title = format!("goroutines of {} {} {role}", identity.pid, program.name());
    let told_to = fs::read_link(format!("/proc/{}/fd/2", identity.pid)).unwrap_or_default();
    let Ok(mut log) = File::open(&told_to) else {
        return vec![format!("{title}: its standard error is {}, no file", told_to.display())];
    };
    let Ok(end) = log.seek(SeekFrom::End(0)).and_then(|end| {
        let is_file = log.metadata()?.is_file();
        is_file.then_some(end).ok_or_else(|| std::io::ErrorKind::InvalidInput.into())
    }) else {
        return vec![format!("{title}: its standard error is {}, no file", told_to.display())];
    };
    let pid = Pid::from_raw(identity.pid);
    // One that was stopped goes on, to do it.
    for signal in [Signal::SIGQUIT, Signal::SIGCONT] {
        let _ = kill(pid, signal);
    }
    let begun = Instant::now();
    while identity.is_alive() && begun.elapsed() < STACKS_PATIENCE {
        sleep(Duration::from_millis(20));
    }
    let mut bytes = Vec::new();
    let _ =
        log.seek(SeekFrom::Start(end)).and_then(|_| log.take(STACKS_MAX).read_to_end(&mut bytes));
    let mut lines = vec![format!("{title}:")];
    let text = String::from_utf8_lossy(&bytes).into_owned();
    lines.extend(blocked_first(&text).iter().map(|line| format!("    {line}")));
    lines
}

/// The goroutines that wait for a lock, and then the others.
fn blocked_first(text: &str) -> Vec<String> {
    let is_blocked = |stack: &&str| {
        let head = stack.lines().next().unwrap_or_default();
        ["sync.", "semacquire"].iter().any(|word| head.contains(word))
    };
    let (blocked, others): (Vec<&str>, Vec<&str>) =
        text.split("\n\n").filter(|stack| !stack.trim().is_empty()).partition(is_blocked);
    let all = blocked.into_iter().chain(others);
    all.flat_map(|stack| stack.trim().lines().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_wait_for_locks_come_first() {
        let text = "SIGQUIT: quit\n\ngoroutine 1 [chan receive]:\nmain.main()\n\n\
                    goroutine 7 [sync.Mutex.Lock, 13 minutes]:\nkubelets.(*pod).latest(...)\n";
        let lines = blocked_first(text);
        assert_eq!(lines[0], "goroutine 7 [sync.Mutex.Lock, 13 minutes]:");
        assert_eq!(lines.last().unwrap(), "main.main()");
    }
}
