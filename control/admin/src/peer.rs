//! Who may use the admin socket.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};

/// The group whose members may use the socket.
pub(crate) const GROUP: &str = "headgate";

/// The process at the other end of a connection, as the kernel reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// User, group and process, or nothing where the kernel didn't say.
    identity: Option<(u32, u32, Option<i32>)>,
}

impl Peer {
    fn of(stream: &UnixStream) -> Self {
        let identity = stream.peer_cred().ok().map(|peer| (peer.uid(), peer.gid(), peer.pid()));
        Self { identity }
    }

    /// Root, the user of this process, and members of the group `headgate` may ask.
    pub(crate) fn may_ask(self, group: Option<u32>) -> bool {
        let Some((uid, gid, pid)) = self.identity else { return false };
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return true;
        }
        let Some(group) = group else { return false };
        gid == group || pid.is_some_and(|pid| supplementary_groups(pid).contains(&group))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self::of(stream.io())
    }
}

/// The groups of a living process: `SO_PEERCRED` reports the primary one alone.
fn supplementary_groups(pid: i32) -> Vec<u32> {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return Vec::new();
    };
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

/// The id of a group in `/etc/group`.
pub(crate) fn group_id(name: &str) -> Option<u32> {
    find_group(&std::fs::read_to_string("/etc/group").ok()?, name)
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let text = "root:x:0:\nheadgate:x:998:ann,bob\nheadgate2:x:5:\n";
        assert_eq!(find_group(text, "headgate"), Some(998));
        assert_eq!(find_group(text, "head"), None);
        assert_eq!(find_group("headgate\nheadgate:x:y", "headgate"), None);
    }

    #[test]
    fn root_ourselves_and_the_group_may_ask() {
        let own = rustix::process::geteuid().as_raw();
        let stranger = |gid| Peer { identity: Some((own + 4_000, gid, None)) };
        assert!(Peer { identity: Some((0, 0, None)) }.may_ask(None));
        assert!(Peer { identity: Some((own, 77, None)) }.may_ask(None));
        assert!(stranger(998).may_ask(Some(998)));
        assert!(!stranger(997).may_ask(Some(998)));
        assert!(!stranger(998).may_ask(None));
        assert!(!Peer::default().may_ask(Some(0)));
    }

    #[test]
    fn supplementary_groups_are_read_from_proc() {
        let own = std::process::id().cast_signed();
        let expected: Vec<u32> =
            rustix::process::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        let mut found = supplementary_groups(own);
        let mut expected = expected;
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(supplementary_groups(-1).is_empty());
    }
}
