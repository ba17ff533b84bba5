//! Gateways that share a Lease, on one clock.

use super::fake::Fault;
use super::*;
use crate::kubernetes::{LeaseOptions, POOLS_ANNOTATION, SELECTION_ANNOTATION, SelectionKey};

fn options(identity: &str, pools: &str) -> Options {
    let mut options = Options::new(identity);
    options.lease = Some(LeaseOptions::default());
    options.pools_hash = pools.to_owned();
    options.write = true;
    options
}

fn with_lease() -> Fake {
    let fake = Fake::default();
    let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "headgate", "namespace": "headgate-system" } });
    fake.with(|cluster| cluster.apply("leases", lease));
    fake
}

fn lease(fake: &Fake) -> Value {
    let name = ("leases".to_owned(), "headgate-system".to_owned(), "headgate".to_owned());
    fake.with(|cluster| cluster.objects[&name].clone())
}

fn holds(rig: &Rig) -> bool {
    rig.source.leadership().holder
}

#[test]
fn without_a_lease_this_gateway_writes() {
    timeless(async {
        let rig = Rig::new(&Fake::default(), Options::new("a"));
        assert!(holds(&rig));
    });
}

#[test]
fn a_free_lease_is_taken_and_renewed_and_given_back() {
    timeless(async {
        let fake = with_lease();
        let mut a = Rig::new(&fake, options("a", "p"));
        pass(500).await;
        assert!(!holds(&a), "not before the list has been taken");
        a.take();
        pass(1_000).await;
        a.take();
        assert!(holds(&a), "{:?}", a.source.leadership());
        let mut last = lease(&fake);
        assert_eq!(last["spec"]["holderIdentity"], "a");
        assert_eq!(last["spec"]["leaseDurationSeconds"], 15);
        assert_eq!(last["metadata"]["annotations"][POOLS_ANNOTATION], "p");
        for _ in 0..5 {
            pass(6_000).await;
            assert!(holds(&a));
            let now = lease(&fake);
            assert_ne!(now["metadata"]["resourceVersion"], last["metadata"]["resourceVersion"]);
            last = now;
        }
        assert_eq!(a.source.leadership().taken, 1);
        assert!(a.source.leadership().renewals >= 5);
    });
}

#[test]
fn a_lease_that_is_not_there_names_the_manifests() {
    timeless(async {
        let fake = Fake::default();
        let mut a = Rig::new(&fake, options("a", "p"));
        pass(1_000).await;
        a.take();
        assert!(!holds(&a));
        let health = a.source.health();
        assert!(health.in_step && health.what.contains("kubectl apply -k"), "{health:?}");
        assert!(a.source.leadership().what.contains("isn't there"));
    });
}

/// The holder is killed: the other waits until the Lease is over, one duration more, and lists.
#[test]
fn a_killed_holder_is_followed_after_two_durations_and_a_list() {
    timeless(async {
        let fake = with_lease();
        let mut a = Rig::new(&fake, options("a", "p"));
        pass(2_000).await;
        a.take();
        let mut b = Rig::seeded(&fake, options("b", "p"), 2);
        pass(8_000).await;
        b.take();
        assert!(holds(&a) && !holds(&b));
        assert_eq!(b.source.leadership().holder_identity, "a");
        let lists = |fake: &Fake| {
            fake.with(|cluster| {
                let lists = cluster.asked.iter();
                lists.filter(|one| one.verb == "list" && one.resource == "services").count()
            })
        };
        let before = lists(&fake);
        drop(a.source);
        // Not sooner than two durations after the last renewal, of which one may be 4.7 s old.
        for _ in 0..25 {
            pass(1_000).await;
            b.take();
            assert!(!holds(&b), "{:?}", b.source.leadership());
        }
        assert_eq!(lists(&fake), before);
        let mut waited = 25;
        while !holds(&b) {
            pass(1_000).await;
            b.take();
            waited += 1;
            assert!(waited < 60, "{:?}", b.source.leadership());
        }
        assert_eq!(lists(&fake), before + 1, "a quorum list of the Services");
        let asked = fake.with(|cluster| cluster.asked.clone());
        let list = asked.iter().rfind(|one| one.verb == "list").unwrap();
        assert_eq!(list.parameter("resourceVersion"), None, "quorum: {}", list.query);
        assert_eq!(lease(&fake)["spec"]["holderIdentity"], "b");
        assert_eq!(lease(&fake)["spec"]["leaseTransitions"], 2);
    });
}

#[test]
fn other_pools_do_not_take_over() {
    timeless(async {
        let fake = with_lease();
        let a = Rig::new(&fake, options("a", "p"));
        pass(2_000).await;
        let mut b = Rig::seeded(&fake, options("b", "other"), 2);
        pass(1_000).await;
        drop(a.source);
        for _ in 0..60 {
            pass(2_000).await;
            b.take();
            assert!(!holds(&b));
        }
        let what = b.source.leadership().what;
        assert!(what.contains("the aliases of a differ"), "{what}");
        assert!(what.contains("annotate lease headgate headgate.dev/pools-"), "{what}");
        fake.with(|cluster| {
            let name = ("leases".to_owned(), "headgate-system".to_owned(), "headgate".to_owned());
            let mut lease = cluster.objects[&name].clone();
            lease["metadata"]["annotations"] = json!({});
            cluster.apply("leases", lease);
        });
        for _ in 0..30 {
            pass(2_000).await;
            b.take();
        }
        assert!(holds(&b));
    });
}

/// What the next holder goes by has been handed out before this one is told that there is one.
#[test]
fn another_holder_is_told_of_after_a_list() {
    timeless(async {
        let fake = with_lease();
        let mut a = Rig::new(&fake, options("a", "p"));
        pass(2_000).await;
        a.take();
        assert!(holds(&a) && !a.source.another_holds());
        let mut taken = lease(&fake);
        taken["spec"]["holderIdentity"] = "b".into();
        fake.with(|cluster| cluster.apply("leases", taken));
        pass(6_000).await;
        assert!(!holds(&a));
        assert!(!a.source.another_holds(), "not before the list has been taken");
        a.take();
        assert!(a.source.another_holds(), "{:?}", a.source.leadership());
    });
}

/// The only gateway ends in good order, and comes back with more pools.
#[test]
fn one_with_new_pools_takes_back_what_it_gave() {
    timeless(async {
        let fake = with_lease();
        let mut a = Rig::new(&fake, options("a", "p"));
        pass(2_000).await;
        a.take();
        assert!(holds(&a));
        a.source.end(Duration::from_secs(2)).await;
        assert_eq!(lease(&fake)["spec"]["holderIdentity"], "");
        let mut other = Rig::seeded(&fake, options("b", "more"), 2);
        pass(2_000).await;
        other.take();
        assert!(!holds(&other), "its pools differ from those of a");
        let mut a = Rig::seeded(&fake, options("a", "more"), 3);
        pass(2_000).await;
        a.take();
        pass(1_000).await;
        a.take();
        assert!(holds(&a), "{:?}", a.source.leadership());
        assert_eq!(lease(&fake)["metadata"]["annotations"][POOLS_ANNOTATION], "more");
    });
}

/// Two hosts of one name: the one whose Lease was overwritten says so, and leaves it to the other.
#[test]
fn of_two_with_one_identity_one_leads() {
    timeless(async {
        let fake = with_lease();
        let mut rigs = [1, 2].map(|seed| Rig::seeded(&fake, options("a", "p"), seed));
        let mut both = 0;
        for second in 0..120 {
            pass(1_000).await;
            rigs.iter_mut().for_each(|rig| drop(rig.take()));
            let led = rigs.iter().filter(|rig| holds(rig)).count();
            both += u32::from(led == 2);
            assert!(second < 30 || led == 1, "{second}: {led} lead");
        }
        assert!(both <= 5, "both led for {both} s");
        let out = rigs.iter().find(|rig| !holds(rig)).unwrap();
        let what = out.source.leadership().what;
        assert!(what.contains("has the identity a of this one"), "{what}");
        assert!(out.source.health().what.contains("kubernetes.identity"));
        // The other one goes, and gives the Lease back.
        let leads = rigs.iter().position(holds).unwrap();
        rigs[leads].source.end(Duration::from_secs(2)).await;
        for _ in 0..30 {
            pass(1_000).await;
            rigs[1 - leads].take();
        }
        assert!(holds(&rigs[1 - leads]));
        assert_eq!(rigs[1 - leads].source.health().what, "");
    });
}

#[test]
fn an_answer_that_was_lost_is_no_other_gateway() {
    timeless(async {
        let fake = with_lease();
        let mut a = Rig::new(&fake, options("a", "p"));
        for _ in 0..30 {
            pass(700).await;
            a.take();
            fake.with(|cluster| cluster.faults.insert("leases".to_owned(), Fault::Lost));
            pass(1_500).await;
            fake.with(|cluster| cluster.faults.clear());
        }
        pass(10_000).await;
        a.take();
        assert!(holds(&a), "{:?}", a.source.leadership());
        assert_eq!(a.source.leadership().lost, 0);
        assert_eq!(a.source.health().what, "");
    });
}

/// Events that come later don't keep the Lease; a write that may still arrive does.
#[test]
fn the_lease_is_given_back_in_time_or_not_at_all() {
    for hangs in [false, true] {
        timeless(async {
            let fake = with_lease();
            let (mut a, uid) = writing::ready(&fake, options("a", "p")).await;
            pass(1_000).await;
            a.take();
            assert!(holds(&a));
            for _ in 0..2 {
                a.source.writer().event(writing::event("Invalid", "something"));
                pass(100).await;
            }
            assert_eq!(a.source.writer().health().waiting, 1, "a repetition is told later");
            if hangs {
                let silent = Fault::Silent;
                fake.with(|cluster| cluster.faults.insert("services/status".to_owned(), silent));
            }
            a.source.writer().status(writing::write(&uid, true));
            pass(10).await;
            let began = tokio::time::Instant::now();
            a.source.end(Duration::from_secs(2)).await;
            let took = began.elapsed();
            assert!(took < Duration::from_millis(if hangs { 1_600 } else { 100 }), "{took:?}");
            let holder = if hangs { "a" } else { "" };
            assert_eq!(lease(&fake)["spec"]["holderIdentity"], holder);
        });
    }
}

/// Random outages of either gateway's way to the server: never two holders, and one in the end.
#[test]
fn there_are_never_two_holders() {
    for seed in 0..40 {
        timeless(two_gateways(seed));
    }
}

async fn two_gateways(seed: u64) {
    let mut jitter = Jitter::seeded(seed);
    let shared = with_lease();
    // Two ways to one server: a fault of one isn't the other's.
    let ways = [Way::default(), Way::default()];
    let mut rigs = [0, 1].map(|number: usize| {
        let (line_sender, line) = Line::fixed(ways[number].client(&shared));
        let options = options(["a", "b"][number], "p");
        let jitter = Jitter::seeded(seed * 2 + number as u64);
        let source = KubernetesSource::with(options, line, &Handle::current(), &jitter);
        let told = BTreeMap::new();
        Rig { fake: shared.clone(), source, line: line_sender, told, full: false }
    });
    let mut led = [0, 0];
    for _ in 0..60 {
        let way = (jitter.next() % 2) as usize;
        ways[way].set(match jitter.next() % 4 {
            0 => Fault::Silent,
            1 => Fault::Refused,
            _ => Fault::None,
        });
        for _ in 0..jitter.next() % 12 {
            pass(1_000).await;
            for (number, rig) in rigs.iter_mut().enumerate() {
                rig.take();
                led[number] += u32::from(holds(rig));
            }
            assert!(!(holds(&rigs[0]) && holds(&rigs[1])), "seed {seed}: two holders");
        }
    }
    for way in &ways {
        way.set(Fault::None);
    }
    for _ in 0..60 {
        pass(1_000).await;
        rigs.iter_mut().for_each(|rig| drop(rig.take()));
    }
    assert!(holds(&rigs[0]) != holds(&rigs[1]), "seed {seed}: one in the end");
}

/// One gateway's way to the server.
#[derive(Clone, Default)]
struct Way(std::sync::Arc<std::sync::Mutex<Fault>>);

impl Way {
    fn set(&self, fault: Fault) {
        *self.0.lock().unwrap() = fault;
    }

    fn client(&self, fake: &Fake) -> kube::Client {
        let (way, fake) = (self.clone(), fake.clone());
        let service = tower::service_fn(move |request| {
            let (fault, fake) = (way.0.lock().unwrap().clone(), fake.clone());
            async move {
                match fault {
                    Fault::Silent => std::future::pending().await,
                    Fault::None => fake.answer(request).await,
                    _ => Err(std::io::ErrorKind::ConnectionRefused.into()),
                }
            }
        });
        kube::Client::new(service, "default")
    }
}

/// The first holder says the key, the others follow it; a configured key goes before it, and an
/// annotation that is none is written anew.
#[test]
fn the_lease_says_what_keys_the_choice_of_backends() {
    timeless(async {
        let fake = with_lease();
        let keyed = |identity: &str, key: u64, configured: bool| {
            let mut options = options(identity, "p");
            options.selection = SelectionKey { key, configured };
            options
        };
        let says =
            |fake: &Fake| lease(fake)["metadata"]["annotations"][SELECTION_ANNOTATION].clone();
        let a = Rig::new(&fake, keyed("a", 0xa, false));
        assert_eq!(a.source.selection_key(), None, "nothing is known yet");
        pass(2_000).await;
        assert_eq!(says(&fake), "000000000000000a");
        let b = Rig::seeded(&fake, keyed("b", 0xb, false), 2);
        pass(6_000).await;
        assert_eq!((a.source.selection_key(), b.source.selection_key()), (Some(0xa), Some(0xa)));
        // Who comes to hold it keeps what it says.
        drop(a.source);
        pass(60_000).await;
        assert_eq!(
            (lease(&fake)["spec"]["holderIdentity"].clone(), says(&fake)),
            ("b".into(), "000000000000000a".into())
        );
        let garble = || {
            fake.with(|cluster| {
                let (kind, namespace) = ("leases".to_owned(), "headgate-system".to_owned());
                let name = (kind, namespace, "headgate".to_owned());
                let mut lease = cluster.objects[&name].clone();
                lease["metadata"]["annotations"][SELECTION_ANNOTATION] = json!("+00000000000000a");
                cluster.apply("leases", lease);
            });
        };
        // What all go by is written again, not what the holder began with.
        garble();
        pass(60_000).await;
        assert_eq!((says(&fake), b.source.selection_key()), ("000000000000000a".into(), Some(0xa)));
        drop(b.source);
        garble();
        let c = Rig::seeded(&fake, keyed("c", 0xc, false), 3);
        pass(6_000).await;
        assert_eq!(c.source.selection_key(), None, "that is no key");
        pass(60_000).await;
        assert_eq!((says(&fake), c.source.selection_key()), ("000000000000000c".into(), Some(0xc)));
        drop(c.source);
        let d = Rig::seeded(&fake, keyed("d", 0xd, true), 4);
        pass(60_000).await;
        assert_eq!((says(&fake), d.source.selection_key()), ("000000000000000d".into(), Some(0xd)));
    });
}
