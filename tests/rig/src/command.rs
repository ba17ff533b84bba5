//! Running a command to its end, with an error that shows what it said. Nothing here waits without
//! a limit: a test that stands still says nothing, and keeps all others from running.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Time that a command gets where nothing else is said: twice what any of them is given by a flag
/// of its own (`--timeout=60s`), on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Between two looks at a process that is about to end.
const LOOK: Duration = Duration::from_millis(1);

/// What a command printed on its standard output, where it ended well within [`PATIENCE`].
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = finish(command, PATIENCE)?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", said(command), output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command with `input` as its standard input, for [`PATIENCE`] at most.
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    let output = run(command, Some(input.to_owned()), PATIENCE)?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\nthe input was:\n{input}", said(command), error.trim());
    }
    Ok(())
}

/// Runs a command without input to its end, whatever that is. After `patience` it is killed with
/// all that it has started, and that is an error which holds what it has said so far.
pub fn finish(command: &mut Command, patience: Duration) -> Result<Output> {
    run(command, None, patience)
}

/// Whether a command ends well that prints for itself. After `patience` it is killed.
pub fn succeeds(command: &mut Command, patience: Duration) -> Result<bool> {
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    match wait_until(&mut child, Instant::now() + patience)? {
        Some(status) => Ok(status.success()),
        None => bail!("{} still ran after {patience:?}: killed", said(command)),
    }
}

/// Waits for a child's end until then; it is killed and `None` where that is later.
pub fn wait_until(child: &mut Child, until: Instant) -> Result<Option<ExitStatus>> {
    let ended = ended_by(child, until)?;
    if ended.is_none() {
        child.kill()?;
        reap(child)?;
    }
    Ok(ended)
}

/// The lines of an output as they come, for `recv_timeout`. Disconnected is its end.
pub fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (told, heard) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if told.send(line).is_err() {
                return;
            }
        }
    });
    heard
}

/// Takes the end of a process that was killed.
#[expect(clippy::disallowed_methods, reason = "the kernel ends who is sent SIGKILL")]
pub(crate) fn reap(child: &mut Child) -> Result<ExitStatus> {
    Ok(child.wait()?)
}

fn run(command: &mut Command, input: Option<String>, patience: Duration) -> Result<Output> {
    let until = Instant::now() + patience;
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    // A group of its own, so that it can be killed with all that it has started.
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // Whoever ends without reading it says why.
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
    let (told, ends) = channel();
    let stdout = collect(child.stdout.take(), told.clone());
    let stderr = collect(child.stderr.take(), told);
    let left = || until.saturating_duration_since(Instant::now());
    let both = (0..2).all(|_| ends.recv_timeout(left()).is_ok());
    let status = if both { ended_by(&mut child, until)? } else { None };
    let [stdout, stderr] =
        [stdout, stderr].map(|said| said.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let Some(status) = status else {
        kill_group(&mut child)?;
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, err) = (text(&stdout), text(&stderr));
        bail!("{} still ran after {patience:?}: killed; it said: {out}\n{err}", said(command));
    };
    Ok(Output { status, stdout, stderr })
}

/// Takes in what comes, and tells of the end.
fn collect(output: Option<impl Read + Send + 'static>, told: Sender<()>) -> Arc<Mutex<Vec<u8>>> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&said);
    thread::spawn(move || {
        let mut chunk = [0; 16 << 10];
        if let Some(mut output) = output {
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                let mut said = kept.lock().unwrap_or_else(PoisonError::into_inner);
                said.extend_from_slice(&chunk[..length]);
            }
        }
        // Nobody listens any more where it came too late.
        let _ = told.send(());
    });
    said
}

fn ended_by(child: &mut Child, until: Instant) -> Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            None if Instant::now() < until => sleep(LOOK),
            ended => return Ok(ended),
        }
    }
}

fn kill_group(child: &mut Child) -> Result<()> {
    let group = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // It may have ended this very moment.
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    reap(child).map(drop)
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start {}", said(command))
}

/// The command as a person would type it.
pub fn said(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn who_stands_still_is_killed_with_its_children() {
        let begun = Instant::now();
        // The child holds the output open, in the same group.
        let error = finish(&mut shell("echo $$ so far; sleep 600 & sleep 600"), LOOK * 500);
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("so far") && error.contains("still ran after 500ms"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        let group = error.split("it said: ").nth(1).and_then(|said| said.split(' ').next());
        let group = nix::unistd::Pid::from_raw(group.unwrap().parse().unwrap());
        let gone = || nix::sys::signal::killpg(group, None).is_err();
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(20), "its children live");
            sleep(LOOK);
        }
        // Its output has ended, itself not.
        let closed = finish(&mut shell("exec >&- 2>&-; sleep 600"), LOOK * 100);
        assert!(format!("{:#}", closed.unwrap_err()).contains("killed"));
        assert!(succeeds(&mut shell("sleep 600"), LOOK * 100).is_err());
    }

    #[test]
    fn what_is_said_is_heard() {
        let long = "x".repeat(200_000);
        assert_eq!(output_of(&mut shell("echo one; echo two >&2")).unwrap(), "one\n");
        feed(&mut shell("test $(wc -c) = 200000"), &long).unwrap();
        // Nobody reads it, which is no reason to wait.
        let error = format!("{:#}", feed(&mut shell("echo no >&2; exit 3"), &long).unwrap_err());
        assert!(error.contains(": no\nthe input was"), "{}", &error[..80]);
        let error = format!("{:#}", output_of(&mut shell("echo why >&2; exit 3")).unwrap_err());
        assert!(error.ends_with("exit status: 3: why"), "{error}");
    }
}
