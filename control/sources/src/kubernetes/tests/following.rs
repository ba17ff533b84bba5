//! One fault at a time.

use super::fake::Fault;
use super::*;
use crate::kubernetes::Timing;

fn options() -> Options {
    Options::new("gateway-1")
}

fn some(fake: &Fake) {
    fake.with(|cluster| {
        cluster.apply("services", service("web"));
        cluster.apply("endpointslices", slice("web", "web-1", 3));
        cluster.apply("nodes", node("n1"));
        let mut unlabelled = slice("web", "stray", 1);
        unlabelled["metadata"]["labels"] = json!({});
        cluster.apply("endpointslices", unlabelled);
    });
}

/// A source that has told everything that is there.
async fn in_step(fake: &Fake, options: Options) -> Rig {
    let mut rig = Rig::new(fake, options);
    pass(2_000).await;
    rig.take().expect("everything at first");
    assert_eq!(rig.told, rig.there());
    assert!(rig.source.health().in_step, "{:?}", rig.source.health());
    rig
}

#[test]
fn nothing_is_told_before_everything_has_listed() {
    for missing in ["services", "endpointslices", "nodes", "servicecidrs"] {
        timeless(async {
            let fake = Fake::default();
            some(&fake);
            fake.with(|cluster| cluster.faults.insert(missing.to_owned(), Fault::Silent));
            let mut rig = Rig::new(&fake, options());
            for _ in 0..20 {
                pass(1_000).await;
                assert!(rig.take().is_none(), "{missing}");
            }
            let health = rig.source.health();
            assert!(!health.in_step && health.stale_since.is_some(), "{health:?}");
            fake.with(|cluster| cluster.faults.clear());
            // A list that hangs is given up after its time.
            pass(40_000).await;
            let changes = rig.take().unwrap();
            assert!(changes.full);
            assert_eq!(rig.told, rig.there());
        });
    }
}

#[test]
fn an_empty_cluster_is_told_too() {
    timeless(async {
        let mut rig = Rig::new(&Fake::default(), options());
        pass(100).await;
        let changes = rig.take().unwrap();
        assert!(changes.full && changes.changes.is_empty());
        assert!(rig.take().is_none());
    });
}

#[test]
fn what_nobody_reads_is_dropped() {
    timeless(async {
        let fake = Fake::default();
        some(&fake);
        let mut rig = Rig::new(&fake, options());
        pass(100).await;
        let changes = rig.take().unwrap();
        for change in changes.changes {
            match change {
                Change::Apply(Object::Service(service, _)) => {
                    let annotations = service.metadata.annotations.unwrap();
                    assert_eq!(annotations.into_keys().collect::<Vec<_>>(), ["kept"]);
                }
                Change::Apply(Object::Node(node, _)) => {
                    let status = node.status.unwrap();
                    assert!(status.images.is_none() && status.addresses.is_some());
                }
                _ => {}
            }
        }
    });
}

#[test]
fn an_api_that_is_not_there_is_no_fault() {
    timeless(async {
        let fake = Fake::default();
        some(&fake);
        let gone = Fault::Status(404, "the server could not find the resource".to_owned());
        fake.with(|cluster| cluster.faults.insert("servicecidrs".to_owned(), gone));
        let rig = in_step(&fake, options()).await;
        // It is looked for now and then, which is no list.
        pass(200_000).await;
        assert!(rig.source.health().in_step);
        assert_eq!(rig.source.health().relists(), 0);
    });
}

#[test]
fn events_are_followed_and_lists_come_in_pages() {
    timeless(async {
        let fake = Fake::default();
        fake.with(|cluster| {
            for number in 0..1_203 {
                cluster.apply("services", service(&format!("web-{number}")));
            }
        });
        let mut rig = in_step(&fake, options()).await;
        assert_eq!(rig.told.len(), 1_203);
        fake.with(|cluster| {
            cluster.apply("services", service("web-7"));
            cluster.delete(&("services".into(), "default".into(), "web-9".into()));
        });
        pass(5).await;
        let changes = rig.take().unwrap();
        assert_eq!(changes.changes.len(), 2);
        assert_eq!(rig.told, rig.there());
    });
}

/// A server that is silent, with its connections open, is noticed by the watches themselves within
/// `watch + watch_grace`, the connection is given up, and what was missed is told.
#[test]
fn a_half_open_watch_is_noticed() {
    timeless(async {
        let fake = Fake::default();
        some(&fake);
        let mut rig = in_step(&fake, options()).await;
        fake.with(|cluster| {
            cluster.freeze(Some("endpointslices"));
            cluster.apply("endpointslices", slice("web", "web-1", 4));
        });
        let Timing { watch, watch_grace, .. } = Timing::default();
        assert!(watch + watch_grace < Duration::from_secs(60));
        pass((watch + watch_grace).as_millis() as u64 + 1_500).await;
        rig.take().unwrap();
        assert_eq!(rig.told, rig.there());
    });
}

#[test]
fn stale_since_is_when_the_server_was_heard_last() {
    timeless(async {
        let fake = Fake::default();
        some(&fake);
        let rig = in_step(&fake, options()).await;
        let before = std::time::Instant::now();
        let heard = tokio::time::Instant::now().into_std();
        fake.with(|cluster| cluster.fault = Fault::Silent);
        fake.with(|cluster| cluster.freeze(None));
        pass(60_000).await;
        let health = rig.source.health();
        assert!(!health.in_step);
        // The last watch that was renewed was heard at most one watch's time before.
        let since = health.stale_since.unwrap();
        assert!(since <= heard + Duration::from_secs(1) || since >= before, "{health:?}");
        assert!(health.what.contains("is silent"), "{}", health.what);
        fake.with(|cluster| cluster.fault = Fault::None);
        pass(10_000).await;
        let health = rig.source.health();
        assert!(health.in_step && health.stale_since.is_none(), "{health:?}");
        assert_eq!(health.what, "");
    });
}

#[test]
fn a_list_from_before_what_was_seen_is_refused_but_not_for_ever() {
    timeless(async {
        let fake = Fake::default();
        some(&fake);
        let old = fake.with(|cluster| cluster.version);
        let mut rig = in_step(&fake, options()).await;
        fake.with(|cluster| {
            cluster.apply("services", service("new"));
            cluster.lists_of = Some(old);
        });
        pass(10).await;
        rig.take().unwrap();
        let told = rig.told.clone();
        // The watch is answered as from a server that knows nothing of that version yet.
        let gone = Fault::Status(410, "too large resource version".to_owned());
        fake.with(|cluster| {
            cluster.faults.insert("services".to_owned(), gone);
            cluster.cut(Some("services"), false);
        });
        pass(1_000).await;
        fake.with(|cluster| cluster.faults.clear());
        pass(8_000).await;
        assert!(rig.take().is_none(), "an older list takes nothing away");
        let health = rig.source.health();
        assert!(!health.in_step && health.what.contains("fallen behind"), "{health:?}");
        let services = health.watches.iter().find(|one| one.kind == Kind::Service).unwrap();
        assert!(services.older_refused > 0);
        // Storage that was restored never catches up: after a minute it is believed.
        fake.with(|cluster| cluster.restore(old));
        pass(30_000).await;
        assert!(rig.take().is_none());
        assert_eq!(rig.told, told);
        pass(40_000).await;
        rig.take().unwrap();
        assert_eq!(rig.told, rig.there());
        assert!(rig.source.health().in_step, "{:?}", rig.source.health());
    });
}

#[test]
fn a_new_client_is_used_at_once() {
    timeless(async {
        let fake = Fake::default();
        some(&fake);
        fake.with(|cluster| cluster.fault = Fault::Status(401, "Unauthorized".to_owned()));
        let mut rig = Rig::new(&fake, options());
        pass(60_000).await;
        assert!(rig.take().is_none());
        let other = Fake::default();
        some(&other);
        rig.line.send_modify(|connection| {
            connection.number = 2;
            connection.client = other.client();
        });
        pass(100).await;
        rig.take().unwrap();
        assert_eq!(rig.told, rig.there());
    });
}

fn many(fake: &Fake, slices: usize, endpoints: usize) {
    fake.with(|cluster| {
        cluster.apply("services", service("web"));
        for number in 0..slices {
            let name = format!("web-{number}");
            cluster.apply("endpointslices", slice("web", &name, endpoints));
        }
    });
}

fn forget(fake: &Fake, slices: std::ops::Range<usize>) {
    fake.with(|cluster| {
        cluster.fault = Fault::Refused;
        cluster.cut(None, false);
        for number in slices {
            let name = format!("web-{number}");
            cluster.delete(&("endpointslices".into(), "default".into(), name));
        }
        cluster.compact();
        cluster.fault = Fault::None;
    });
}

#[test]
fn a_list_that_lost_more_than_half_is_held_back_for_a_while() {
    timeless(async {
        let fake = Fake::default();
        many(&fake, 10, 3);
        let mut rig = in_step(&fake, options()).await;
        let all = rig.told.clone();
        forget(&fake, 0..6);
        pass(1_500).await;
        rig.take();
        assert_eq!(rig.told, all, "nothing has gone yet");
        let health = rig.source.health();
        assert!(!health.in_step && health.what.contains("held back"), "{health:?}");
        // One comes back meanwhile: that is told at once, and it isn't removed.
        fake.with(|cluster| cluster.apply("endpointslices", slice("web", "web-2", 3)));
        pass(10).await;
        rig.take().unwrap();
        assert_eq!(rig.told.len(), all.len());
        pass(3_000).await;
        rig.take().unwrap();
        assert_eq!(rig.told, rig.there());
        assert!(rig.source.health().in_step);
    });
}

/// What is held back goes in time, though another list is being read.
#[test]
fn what_is_held_back_does_not_wait_for_a_list() {
    timeless(async {
        let fake = Fake::default();
        many(&fake, 10, 3);
        let mut rig = in_step(&fake, options()).await;
        let all = rig.told.len();
        forget(&fake, 0..6);
        pass(1_500).await;
        rig.take();
        assert_eq!(rig.told.len(), all);
        let watches = |fake: &Fake| {
            fake.with(|cluster| {
                let asked = cluster.asked.iter();
                asked.filter(|one| one.verb == "watch" && one.resource == "endpointslices").count()
            })
        };
        // It can't follow any longer, and the list that it needs hangs.
        let before = watches(&fake);
        fake.with(|cluster| {
            cluster.apply("nodes", node("n9"));
            cluster.compact();
            cluster.cut(Some("endpointslices"), false);
        });
        while watches(&fake) == before {
            pass(1).await;
        }
        pass(2).await;
        fake.with(|cluster| cluster.faults.insert("endpointslices".to_owned(), Fault::Silent));
        pass(5_000).await;
        rig.take();
        assert_eq!(rig.told.len(), all + 1 - 6, "a Node more, and six slices less");
    });
}

#[test]
fn fewer_or_half_or_delivered_removals_are_not_held_back() {
    timeless(async {
        for (slices, endpoints, gone) in [(10, 3, 0..5), (6, 3, 0..6)] {
            let fake = Fake::default();
            many(&fake, slices, endpoints);
            let mut rig = in_step(&fake, options()).await;
            forget(&fake, gone);
            pass(1_500).await;
            rig.take().unwrap();
            assert_eq!(rig.told, rig.there());
        }
        let fake = Fake::default();
        many(&fake, 30, 1);
        let mut rig = in_step(&fake, options()).await;
        fake.with(|cluster| {
            for number in 0..30 {
                let name = format!("web-{number}");
                cluster.delete(&("endpointslices".into(), "default".into(), name));
            }
        });
        pass(10).await;
        rig.take().unwrap();
        assert_eq!(rig.told, rig.there());
    });
}

#[test]
fn slices_that_shrink_count_as_removal() {
    timeless(async {
        let fake = Fake::default();
        many(&fake, 1, 40);
        let mut rig = in_step(&fake, options()).await;
        fake.with(|cluster| {
            cluster.fault = Fault::Refused;
            cluster.cut(None, false);
            cluster.apply("endpointslices", slice("web", "web-0", 10));
            cluster.compact();
            cluster.fault = Fault::None;
        });
        pass(1_500).await;
        assert!(rig.take().is_none());
        pass(3_000).await;
        rig.take().unwrap();
        assert_eq!(rig.told, rig.there());
    });
}

/// Through `next`, on the real clock.
#[test]
fn the_first_of_a_burst_comes_at_once_and_the_rest_together() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let fake = Fake::default();
    some(&fake);
    let (_line, line) = {
        let _inside = runtime.enter();
        Line::fixed(fake.client())
    };
    let mut options = options();
    options.timing.gather = Duration::from_millis(400);
    let mut source = KubernetesSource::with(options, line, runtime.handle(), &Jitter::seeded(3));
    let minute = Duration::from_secs(60);
    assert!(source.next(minute).unwrap().full);
    std::thread::sleep(Duration::from_millis(900));
    assert!(source.next(Duration::ZERO).is_none());
    let mut batches = Vec::new();
    for number in 0..100 {
        fake.with(|cluster| cluster.apply("services", service(&format!("s{number}"))));
        if number == 0 {
            let first = source.next(minute).unwrap();
            assert_eq!(first.changes.len(), 1);
        }
    }
    let mut told = 0;
    while told < 99 {
        let changes = source.next(minute).unwrap();
        told += changes.changes.len();
        batches.push(changes.changes.len());
    }
    assert!(batches.len() < 20, "a storm of 99 came in {batches:?}");
}
