//! How soon a change is seen, whoever makes it and however.

use super::*;
use std::path::PathBuf;

const SOON: Duration = Duration::from_millis(900);

fn started(files: &[(&str, &str)]) -> (TempDir, DirectorySource) {
    let directory = directory(files);
    let mut source = open(&directory);
    source.load();
    (directory, source)
}

fn with_port(port: u16) -> String {
    WEB.replace("port: 80", &format!("port: {port}"))
}

/// The next change of objects within [`SOON`].
fn soon(source: &mut DirectorySource) -> (Vec<String>, Duration) {
    let began = Instant::now();
    while began.elapsed() < SOON {
        if let Some(changes) = source.next(SOON.saturating_sub(began.elapsed()))
            && !changes.changes.is_empty()
        {
            return (short(&changes).0, began.elapsed());
        }
    }
    panic!("nothing came within {SOON:?}");
}

#[test]
fn nothing_changes_nothing() {
    let (_directory, mut source) = started(&[("web.yaml", WEB)]);
    let began = Instant::now();
    assert!(source.next(Duration::from_millis(100)).is_none());
    assert!((90..400).contains(&began.elapsed().as_millis()));
    assert!(source.next(Duration::ZERO).is_none());
}

#[test]
fn every_way_to_write_is_seen_soon() {
    type Way = fn(PathBuf, &str);
    let ways: &[(&str, Way)] = &[
        ("written over", |path, text| fs::write(path, text).unwrap()),
        ("written aside and renamed", |path, text| {
            fs::write(path.with_extension("tmp"), text).unwrap();
            fs::rename(path.with_extension("tmp"), path).unwrap();
        }),
        ("moved away and written anew", |path, text| {
            fs::rename(&path, path.with_extension("yaml~")).unwrap();
            fs::write(path, text).unwrap();
        }),
        ("removed and linked", |path, text| {
            fs::remove_file(&path).unwrap();
            fs::write(path.with_extension("other"), text).unwrap();
            fs::hard_link(path.with_extension("other"), path).unwrap();
        }),
    ];
    let (directory, mut source) = started(&[("web.yaml", WEB)]);
    for (number, (what, way)) in ways.iter().enumerate() {
        way(directory.path().join("web.yaml"), &with_port(1_000 + number as u16));
        let (objects, took) = soon(&mut source);
        assert_eq!(objects, ["+ Service default/web web.yaml:1"], "{what}");
        println!("{what}: {took:?}");
    }
    fs::remove_file(directory.path().join("web.yaml")).unwrap();
    assert_eq!(soon(&mut source).0, ["- Service default/web"]);
}

#[test]
fn a_slow_writer_is_waited_for() {
    use std::io::Write;
    let (directory, mut source) = started(&[("web.yaml", WEB)]);
    let path = directory.path().join("web.yaml");
    let writer = std::thread::spawn(move || {
        let text = with_port(81);
        let mut file = fs::File::create(path).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let (one, two) = text.split_at(40);
        file.write_all(one.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        file.write_all(two.as_bytes()).unwrap();
    });
    let (objects, _) = soon(&mut source);
    assert_eq!(objects, ["+ Service default/web web.yaml:1"]);
    writer.join().unwrap();
    assert!(source.next(Duration::from_millis(200)).is_none(), "no half was read");
}

#[test]
fn an_emptied_file_is_believed_in_the_end() {
    let (directory, mut source) = started(&[("web.yaml", WEB)]);
    fs::write(directory.path().join("web.yaml"), "").unwrap();
    let (objects, took) = soon(&mut source);
    assert_eq!(objects, ["- Service default/web"]);
    assert!(took >= Duration::from_millis(90), "{took:?}");
}

#[test]
fn a_storm_is_gathered_and_does_not_starve() {
    let (directory, mut source) = started(&[]);
    let path = directory.path().to_owned();
    let writer = std::thread::spawn(move || {
        for number in 0..400 {
            let text = WEB.replace("name: web", &format!("name: w{number}"));
            fs::write(path.join(format!("w{number}.yaml")), text).unwrap();
            std::thread::sleep(Duration::from_micros(500));
        }
    });
    let began = Instant::now();
    let (mut reads, mut objects) = (0, 0);
    while objects < 400 && began.elapsed() < Duration::from_secs(10) {
        if let Some(changes) = source.next(Duration::from_millis(500)) {
            reads += 1;
            objects += changes.changes.len();
        }
    }
    writer.join().unwrap();
    assert_eq!(objects, 400);
    assert!((2..100).contains(&reads), "{reads} reads");
}

#[test]
fn a_directory_that_goes_and_comes_back() {
    let (directory, mut source) = started(&[("web.yaml", WEB)]);
    let path = directory.path().to_owned();
    fs::remove_dir_all(&path).unwrap();
    let began = Instant::now();
    let mut reasons = Vec::new();
    while reasons.is_empty() && began.elapsed() < SOON {
        if let Some(changes) = source.next(SOON) {
            assert!(changes.changes.is_empty() || !path.exists());
            reasons.extend(changes.diagnostics.into_iter().map(|event| event.reason));
        }
    }
    assert_eq!(reasons, ["DirectoryUnreadable"]);
    assert!(source.next(Duration::from_millis(500)).is_none(), "said once");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("api.yaml"), WEB.replace("name: web", "name: api")).unwrap();
    let mut all = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        if let Some(changes) = source.next(Duration::from_millis(100)) {
            let (objects, events) = short(&changes);
            all.extend(objects);
            all.extend(events);
        }
    }
    assert!(all.iter().any(|one| one.starts_with("+ Service default/api")), "{all:?}");
    assert!(all.iter().any(|one| one.starts_with("DirectoryRead ")), "{all:?}");
    assert!(all.contains(&"- Service default/web".to_owned()), "{all:?}");
    // It is watched again, not only looked at.
    fs::write(path.join("web.yaml"), WEB).unwrap();
    let (_, took) = soon(&mut source);
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_directory_that_is_replaced() {
    let outer = directory(&[]);
    let path = outer.path().join("manifests");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("web.yaml"), WEB).unwrap();
    let mut source = DirectorySource::open(&path, Options::default()).unwrap();
    source.load();
    let next = outer.path().join("next");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("web.yaml"), with_port(81)).unwrap();
    fs::rename(&path, outer.path().join("old")).unwrap();
    fs::rename(&next, &path).unwrap();
    assert_eq!(soon(&mut source).0, ["+ Service default/web web.yaml:1"]);
}

#[test]
fn ten_thousand_services() {
    let text = |port: u16| {
        let all: Vec<_> = (0..10_000)
            .map(|n| {
                let port = if n == 5_000 { port } else { 80 };
                WEB.replace("name: web", &format!("name: w{n}"))
                    .replace("port: 80", &format!("port: {port}"))
            })
            .collect();
        all.join("---\n")
    };
    let (directory, mut source) = started(&[("all.yaml", &text(80))]);
    assert_eq!(source.objects().count(), 10_000);
    fs::write(directory.path().join("all.yaml"), text(81)).unwrap();
    let began = Instant::now();
    let changes = source.next(Duration::from_secs(10)).unwrap();
    println!("one of ten thousand in one file: {:?}", began.elapsed());
    assert_eq!(short(&changes).0, ["+ Service default/w5000 all.yaml:45001"]);
}
