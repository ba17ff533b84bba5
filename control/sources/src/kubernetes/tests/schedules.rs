//! Random schedules of changes and faults. Whatever happens, the source ends with what the server
//! has, and says meanwhile when it may be wrong.

use super::fake::Fault;
use super::*;
use tokio::time::Instant;

/// Schedules of a run; `HEADGATE_SCHEDULES` sets another number.
const SCHEDULES: u64 = 10_000;
/// Steps of one.
const STEPS: u64 = 14;
const RESOURCES: [&str; 4] = ["services", "endpointslices", "nodes", "servicecidrs"];

fn options() -> Options {
    let mut options = Options::new("gateway-1");
    options.timing.watch = Duration::from_secs(8);
    options.timing.watch_grace = Duration::from_secs(2);
    options.timing.list = Duration::from_secs(4);
    options
}

/// How long a difference may be there before the source says that it isn't in step: what a
/// half-open watch takes to be noticed.
fn noticed_within() -> Duration {
    let timing = options().timing;
    timing.watch + timing.watch_grace + timing.answer
}

/// One of the cluster's objects changes.
fn change(fake: &Fake, jitter: &mut Jitter) {
    let resource = RESOURCES[(jitter.next() % 4) as usize];
    let number = jitter.next() % 12;
    let name = format!("o{number}");
    fake.with(|cluster| {
        let object = match resource {
            "services" => service(&name),
            "endpointslices" => {
                let mut slice = slice("o1", &name, (jitter.next() % 9) as usize);
                if jitter.next().is_multiple_of(8) {
                    slice["metadata"]["labels"] = json!({});
                }
                slice
            }
            "nodes" => node(&name),
            _ => json!({ "metadata": { "name": name }, "spec": { "cidrs": ["198.19.0.0/16"] } }),
        };
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let key = (resource.to_owned(), namespace.to_owned(), name);
        match jitter.next() % 3 {
            0 => cluster.delete(&key),
            // Leaving a label's watch is a deletion there; the server in memory doesn't play it.
            _ if resource == "endpointslices" && cluster.objects.contains_key(&key) => {
                let labels = cluster.objects[&key]["metadata"]["labels"].clone();
                let mut object = object;
                object["metadata"]["labels"] = labels;
                cluster.apply(resource, object);
            }
            _ => drop(cluster.apply(resource, object)),
        }
    });
}

/// Something breaks, or works again.
fn fault(fake: &Fake, jitter: &mut Jitter) {
    let resource = RESOURCES[(jitter.next() % 4) as usize];
    let one = (!jitter.next().is_multiple_of(3)).then_some(resource);
    let half = jitter.next().is_multiple_of(2);
    let busy = |code| Fault::Status(code, "busy".to_owned());
    let faults = [
        Fault::Refused,
        Fault::Silent,
        busy(500),
        busy(429),
        busy(403),
        busy(401),
        Fault::Certificate("UnknownIssuer"),
    ];
    fake.with(|cluster| match jitter.next() % 12 {
        0 => cluster.cut(one, half),
        1 => cluster.reset(),
        2 => cluster.repeat(1 + (jitter.next() % 4) as usize),
        3 => cluster.freeze(one),
        4 => {
            // Watches from before can't go on: cut, forgotten, and changed meanwhile.
            cluster.cut(one, half);
            cluster.compact();
        }
        5 | 6 => {
            let fault = faults[(jitter.next() % 7) as usize].clone();
            if fault == Fault::Silent {
                cluster.freeze(one);
            }
            match one {
                Some(resource) => drop(cluster.faults.insert(resource.to_owned(), fault)),
                None => cluster.fault = fault,
            }
        }
        7 => cluster.lists_of = Some(cluster.version.saturating_sub(jitter.next() % 6)),
        8 => cluster.compact(),
        _ => heal(cluster),
    });
}

fn heal(cluster: &mut super::fake::Cluster) {
    cluster.fault = Fault::None;
    cluster.faults.clear();
    cluster.lists_of = None;
}

/// Follows how long the source has said that it is in step while it wasn't.
struct Truth {
    lying_since: Option<Instant>,
}

impl Truth {
    fn look(&mut self, rig: &Rig, what: &str) {
        let health = rig.source.health();
        assert_eq!(health.in_step, health.stale_since.is_none());
        assert!(health.in_step || !health.what.is_empty(), "{what}: {health:?}");
        if rig.full && health.in_step && rig.told != rig.there() {
            let since = *self.lying_since.get_or_insert_with(Instant::now);
            let lied = since.elapsed();
            assert!(lied <= noticed_within(), "{what}: untrue for {lied:?}: {health:?}");
        } else {
            self.lying_since = None;
        }
    }
}

async fn schedule(seed: u64) {
    let what = format!("schedule {seed}");
    let mut jitter = Jitter::seeded(seed);
    let fake = Fake::default();
    for _ in 0..jitter.next() % 20 {
        change(&fake, &mut jitter);
    }
    let mut rig = Rig::seeded(&fake, options(), seed);
    let mut truth = Truth { lying_since: None };
    for _ in 0..STEPS {
        match jitter.next() % 3 {
            0 => fault(&fake, &mut jitter),
            _ => change(&fake, &mut jitter),
        }
        let pause = [0, 1, 20, 700, 2_500][(jitter.next() % 5) as usize];
        pass(pause).await;
        rig.take();
        truth.look(&rig, &what);
    }
    fake.with(heal);
    let mut waited = 0;
    // Half-open watches are noticed, what was held back is released.
    while waited < 60 && (rig.told != rig.there() || !rig.source.health().in_step || !rig.full) {
        pass(1_000).await;
        rig.take();
        truth.look(&rig, &what);
        waited += 1;
    }
    assert_eq!(rig.told, rig.there(), "{what}");
    let health = rig.source.health();
    assert!(health.in_step, "{what}: {health:?}");
}

#[test]
fn every_schedule_ends_with_what_the_server_has() {
    let count = std::env::var("HEADGATE_SCHEDULES").ok().and_then(|text| text.parse().ok());
    for seed in 0..count.unwrap_or(SCHEDULES) {
        timeless(schedule(seed));
    }
}
