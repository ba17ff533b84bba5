//! The binary as a person uses it: against a gateway that answers from constants, and without one.
#![allow(clippy::unwrap_used)]

#[path = "../../admin/tests/common/mod.rs"]
mod common;

use common::{Fake, Running};
use std::path::Path;
use std::process::Output;

async fn headgate(directory: &Path, line: &str) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_headgate"));
    command.args(line.split_whitespace()).current_dir(directory).env_clear();
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test]
async fn commands_ask_a_running_gateway() {
    let running = Running::start(Fake { backends: 2, ..Fake::default() }).await;
    let ask = async |line: &str| {
        let line = format!("--socket run/headgate.sock {line}");
        headgate(running.directory.path(), &line).await
    };
    let (code, out, _) = ask("").await;
    assert!(code == 0 && out.contains("Try next:\n  headgate show services"), "{out}");
    let (code, out, _) = ask("status").await;
    assert!(code == 0 && out.starts_with("Headgate 0.1.0 abc1234 · DPDK 22.11.7"), "{out}");
    let (code, out, _) = ask("show be --service web -o json").await;
    let rows: Vec<model::answers::BackendRow> = serde_json::from_str(&out).unwrap();
    assert_eq!((code, rows), (0, vec![common::backend(0), common::backend(1)]));
    let (code, out, _) = ask("show be --service web -o yaml").await;
    let rows: Vec<model::answers::BackendRow> = serde_saphyr::from_str(&out).unwrap();
    assert_eq!((code, rows), (0, vec![common::backend(0), common::backend(1)]));
    assert!(out.starts_with("---\n- service:\n"), "{out}");
    let (_, out, _) = ask("show backends -n other").await;
    assert_eq!(out, "No backends.\n");
    let (code, out, _) = ask("show conn --src 198.18.0.10 --limit 3").await;
    assert!(code == 0 && out.starts_with("No connections"), "{out}");
    assert_eq!(running.gateway.asked.lock().unwrap()[0].limit, 3);
    let (code, _, err) = ask("show services").await;
    assert_eq!((code, err.as_str()), (1, "headgate: worker 3 did not answer in time\n"));
    let (code, out, _) = ask("explain tcp 198.18.0.10:1 203.0.113.10:80").await;
    assert!(code == 0 && out.starts_with("frontend 203.0.113.10:80/tcp <- default/web"), "{out}");
    let (code, out, _) = ask("explain udp 198.18.0.10:1 203.0.113.10:80 -o json").await;
    let flow: model::answers::FlowExplanation = serde_json::from_str(&out).unwrap();
    assert_eq!((code, flow.answer.chosen_by.as_str()), (0, "no_backend"));
    let (code, _, err) = ask("explain service nosuch").await;
    assert_eq!((code, err.as_str()), (1, "headgate: no Service default/nosuch is known\n"));
    let (code, out, _) = ask("show pool").await;
    assert!(code == 0 && out.contains("demo   2/64"), "{out}");
    let (code, out, _) = ask("get pools -o yaml").await;
    let rows: Vec<model::answers::PoolRow> = serde_saphyr::from_str(&out).unwrap();
    assert_eq!((code, rows), (0, vec![common::pool()]));
    let (code, out, _) = ask("show drops").await;
    assert!(code == 0 && out.contains("answer_limited"), "{out}");
}

#[tokio::test]
async fn commands_without_a_gateway_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let ask = async |line: &str| headgate(directory.path(), line).await;
    let (code, out, _) = ask("--socket none.sock").await;
    assert!(code == 1 && out.contains("start it with") && out.contains("headgate check"), "{out}");
    let (code, _, err) = ask("status --socket none.sock").await;
    assert!(code == 1 && err.contains("no Headgate answers on"), "{err}");
    let (code, out, _) = ask("explain drop port_zero").await;
    assert!(code == 0 && out.starts_with("port_zero\n"), "{out}");
    let (code, _, err) = ask("explain drop port_zer").await;
    assert!(code == 2 && err.contains("did you mean port_zero?"), "{err}");
    assert_eq!(ask("show pods").await.0, 2);
    let (code, out, _) = ask("--version").await;
    assert!(code == 0 && out.starts_with("Headgate 0.1.0 "), "{out}");
    assert!(ask("man").await.1.contains(".TH headgate"));
    assert!(ask("completion bash").await.1.contains("_headgate"));
    assert!(ask("check --keys").await.1.contains("[[interface]]"));
}

#[tokio::test]
async fn a_bad_configuration_exits_with_78() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bad.toml"), "[eal]\nmbufs = 3\nfoo = 1\n").unwrap();
    for line in ["check --config bad.toml", "run --config bad.toml", "run --config absent.toml"] {
        let (code, _, err) = headgate(directory.path(), line).await;
        assert_eq!(code, 78, "{err}");
    }
    let (_, _, err) = headgate(directory.path(), "check --config bad.toml").await;
    assert!(err.contains("bad.toml:2: eal.mbufs: 3 is out of range"), "{err}");
    assert!(err.contains("bad.toml:3: eal.foo: unknown key"), "{err}");
}
