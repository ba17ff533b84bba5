//! An argument that DPDK refuses gives an error with the end of its log.

use dpdk::{Eal, EalError, EalOptions};

#[test]
fn a_wrong_argument_is_quoted() {
    let extra = vec!["--no-such-argument".to_owned()];
    let error = Eal::init(EalOptions { extra, ..EalOptions::no_huge(64) }).unwrap_err();
    println!("{error}");
    let EalError::Failed { log, .. } = &error else { panic!("{error}") };
    assert!(!log.is_empty());
}
