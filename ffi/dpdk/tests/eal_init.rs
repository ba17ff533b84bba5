//! The EAL: no huge pages gives the remedy and allows another try; it works once; the caller's
//! affinity stays.
#![allow(clippy::unwrap_used)]

use dpdk::{
    DeviceString, Eal, EalError, EalOptions, Pool, Port, PortError, ShutdownError, cycles,
    cycles_hz,
};

fn allowed_cpus() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned()
}

#[test]
fn the_eal_starts_once() {
    // More than any machine has.
    let wanted = EalOptions { memory_mib: 1 << 30, ..EalOptions::default() };
    let error = Eal::init(wanted).unwrap_err();
    assert!(matches!(error, EalError::NoHugePages { .. }), "{error}");
    assert!(error.to_string().contains("sysctl -w vm.nr_hugepages="), "{error}");
    println!("{error}");

    let before = allowed_cpus();
    let extra = vec!["--vdev=net_null7".to_owned()];
    let eal = Eal::init(EalOptions { extra, ..EalOptions::no_huge(64) }).unwrap();
    assert_eq!(allowed_cpus(), before);
    assert_eq!(std::thread::spawn(allowed_cpus).join().unwrap(), before);

    let again = Eal::init(EalOptions::no_huge(64));
    assert!(matches!(again, Err(EalError::AlreadyInitialised)), "{again:?}");

    let hz = cycles_hz(&eal);
    assert!(hz > 100_000_000, "{hz}");
    let start = cycles();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let passed = (cycles() - start) as f64 / hz as f64;
    assert!((0.04..1.0).contains(&passed), "{passed} s");

    let device: DeviceString = "net_null7".parse().unwrap();
    for _ in 0..2 {
        // The first takes over what the EAL made, the second attaches it anew.
        let port = Port::attach(&eal, &device, None).unwrap();
        let second = Port::attach(&eal, &device, None);
        assert!(matches!(second, Err(PortError::AlreadyAttached(_))), "{second:?}");
        drop(port);
    }

    let pool = Pool::new(&eal, "p", 63, 0, 2176).unwrap();
    let handle = eal.clone();
    let refused = handle.shutdown();
    assert!(matches!(refused, Err(ShutdownError::InUse(2))), "{refused:?}");
    drop(pool);
    eal.shutdown().unwrap();
    let again = Eal::init(EalOptions::no_huge(64));
    assert!(matches!(again, Err(EalError::AlreadyInitialised)), "{again:?}");
}
