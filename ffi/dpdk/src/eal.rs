//! DPDK's environment abstraction layer: memory, plug-ins, and its one initialisation a process.

use std::collections::BTreeSet;
use std::ffi::{CString, NulError, c_char};
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dpdk_sys::{rte_mbuf_dynfield, rte_mempool};

use crate::{Errno, logs, mbuf};

/// How much DPDK logs; lines below the level are not even made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors and worse.
    Error = 4,
    /// And warnings.
    Warning = 5,
    /// And what is normal but significant (DPDK's default).
    Notice = 6,
    /// And information.
    Info = 7,
    /// Everything.
    Debug = 8,
}

/// What the EAL is given.
#[derive(Clone, Debug)]
pub struct EalOptions {
    /// Memory from huge pages, held in memory only (`--in-memory`). Else from ordinary pages
    /// (`--no-huge`), which is for tests and small set-ups.
    pub huge_pages: bool,
    /// Memory taken at the start, in MiB.
    pub memory_mib: u32,
    /// Name in DPDK's messages.
    pub program: String,
    /// Core (the kernel's number) of the thread that initialises; it ends at once.
    pub cpu: u32,
    /// What is kept in [`logs::lines`].
    pub log_level: LogLevel,
    /// Scan the PCI bus. DPDK then takes every PCI device bound to vfio-pci and the like; name
    /// those wanted by `extra: ["-a", "0000:01:00.0"]`. [`Port::attach`](crate::Port::attach)
    /// then finds them made. Without this, ports are virtual devices.
    pub pci: bool,
    /// Further arguments, as DPDK's "EAL parameters" page describes them.
    pub extra: Vec<String>,
}

impl Default for EalOptions {
    /// Huge pages, 512 MiB, core 0, no PCI.
    fn default() -> Self {
        Self {
            huge_pages: true,
            memory_mib: 512,
            program: "headgate".to_owned(),
            cpu: 0,
            log_level: LogLevel::Notice,
            pci: false,
            extra: Vec::new(),
        }
    }
}

impl EalOptions {
    /// Without huge pages: runs anywhere, also unprivileged.
    pub fn no_huge(memory_mib: u32) -> Self {
        Self { huge_pages: false, memory_mib, ..Self::default() }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            self.program.clone(),
            format!("--lcores=0@{}", self.cpu),
            "--iova-mode=va".to_owned(),
            "--no-telemetry".to_owned(),
            format!("--log-level={}", self.log_level as i32),
            "-m".to_owned(),
            self.memory_mib.to_string(),
        ];
        let memory: &[&str] = if self.huge_pages {
            &["--in-memory", "--single-file-segments"]
        } else {
            &["--no-huge", "--no-shconf"]
        };
        arguments.extend(memory.iter().map(|&argument| argument.to_owned()));
        if !self.pci {
            arguments.push("--no-pci".to_owned());
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// Why the EAL is not there.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// Initialising works once a process, also after [`Eal::shutdown`] and after a failure.
    #[error("DPDK was initialised in this process before, and that works once; start a new one")]
    AlreadyInitialised,
    /// Fewer free huge pages than memory wanted. Found before DPDK was touched: another try with
    /// other options is possible.
    #[error(
        "{wanted_mib} MiB of huge pages are wanted and {free_mib} MiB are free; reserve them: \
         sysctl -w vm.nr_hugepages={pages} (pages of {page_kib} KiB; counts those in use by \
         others), or turn huge pages off"
    )]
    NoHugePages {
        /// MiB wanted.
        wanted_mib: u64,
        /// MiB in free huge pages of all sizes.
        free_mib: u64,
        /// The value to set.
        pages: u64,
        /// The size of those pages.
        page_kib: u64,
    },
    /// An argument holds a NUL byte.
    #[error("an EAL argument holds a NUL byte: {0}")]
    Argument(#[from] NulError),
    /// The thread that initialises could not be made or died.
    #[error("the thread that initialises DPDK failed: {0}")]
    Thread(#[source] io::Error),
    /// The kernel refused something.
    #[error(
        "DPDK lacks a permission ({errno}); run as root, or give the process its huge pages, \
         memlock limit and CAP_NET_ADMIN; DPDK says: {log}"
    )]
    Permission {
        /// What `rte_eal_init` reports.
        errno: Errno,
        /// The end of its log.
        log: String,
    },
    /// Anything else.
    #[error("rte_eal_init failed: {errno}; DPDK says: {log}")]
    Failed {
        /// What `rte_eal_init` reports.
        errno: Errno,
        /// The end of its log.
        log: String,
    },
    /// Another user of mbuf metadata has our place.
    #[error(
        "the mbuf's bytes 112 to 127, which carry metadata, are taken ({0}); a driver that \
         registers dynamic fields there cannot be used"
    )]
    Metadata(Errno),
}

/// Why [`Eal::shutdown`] left DPDK's memory as it is.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// Ports, pools, rings, regions, registered threads or clones are still there.
    #[error("{0} handles still use DPDK; drop ports, pools, rings and registrations first")]
    InUse(usize),
    /// Mbufs are out whose pool is gone; their memory stays for the rest of the process.
    #[error("{0} mbufs are still held; DPDK's memory stays mapped")]
    MbufsHeld(u64),
}

/// The version of the DPDK that runs, as `DPDK 22.11.11`.
pub fn version() -> String {
    // SAFETY: returns a string of DPDK's that stays.
    let text = unsafe { dpdk_sys::dk_version() };
    // SAFETY: it ends with a NUL and is never written again.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// DPDK, initialised. Cloning makes another handle; the last one to go cleans up.
#[derive(Clone, Debug)]
pub struct Eal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Every mempool ever made: they go with the EAL, as mbufs may outlive the `Pool`.
    pools: Mutex<Vec<PoolPointer>>,
    /// Numbers of the ports that have a `Port`.
    ports: Mutex<BTreeSet<u16>>,
}

#[derive(Debug)]
struct PoolPointer(*mut rte_mempool);

// SAFETY: a mempool may be used from any thread.
unsafe impl Send for PoolPointer {}

static INITIALISED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Initialises DPDK, on a thread of its own: DPDK pins the calling thread to one core, and
    /// threads born of it would inherit that.
    pub fn init(options: EalOptions) -> Result<Self, EalError> {
        if options.huge_pages {
            check_huge_pages(options.memory_mib.into(), &free_huge_pages())?;
        }
        let arguments: Vec<CString> =
            options.arguments().into_iter().map(CString::new).collect::<Result<_, _>>()?;
        if INITIALISED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyInitialised);
        }
        let thread = std::thread::Builder::new()
            .name("eal-init".to_owned())
            .spawn(move || init_here(arguments))
            .map_err(EalError::Thread)?;
        let dead = |_| EalError::Thread(io::Error::other("it panicked"));
        thread.join().map_err(dead)??;
        Ok(Self { inner: Arc::new(Inner { pools: Mutex::default(), ports: Mutex::default() }) })
    }

    /// The last lines that DPDK logged, oldest first.
    pub fn logs(&self) -> Vec<String> {
        logs::lines()
    }

    /// Cleans up, and says if that isn't possible. Dropping the last handle does the same and
    /// says nothing.
    ///
    /// DPDK cannot be initialised again in this process.
    pub fn shutdown(self) -> Result<(), ShutdownError> {
        let handles = Arc::strong_count(&self.inner) - 1;
        if handles > 0 {
            return Err(ShutdownError::InUse(handles));
        }
        match self.inner.mbufs_held() {
            0 => Ok(()),
            held => Err(ShutdownError::MbufsHeld(held)),
        }
    }

    /// Keeps a mempool until the EAL goes.
    pub(crate) fn adopt_pool(&self, pool: *mut rte_mempool) {
        let mut pools = self.inner.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.push(PoolPointer(pool));
    }

    /// Whether port `id` had no owner; it has one now.
    pub(crate) fn claim_port(&self, id: u16) -> bool {
        self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    /// Port `id` is detached.
    pub(crate) fn release_port(&self, id: u16) {
        self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Inner {
    fn mbufs_held(&self) -> u64 {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let held = pools.iter().map(|pool| {
            // SAFETY: mempools are never freed before the EAL.
            u64::from(unsafe { dpdk_sys::rte_mempool_in_use_count(pool.0) })
        });
        held.sum()
    }
}

impl Drop for Inner {
    /// Every port, queue, ring, pool and registered thread held a handle and is gone, so nothing
    /// polls. Mbufs may still be held: then the memory stays. A thread that frees its last mbuf at
    /// this moment is unregistered, so it goes to the pool's ring, whose count moves as its very
    /// last step; zero in use therefore means that nobody is in there.
    fn drop(&mut self) {
        if self.mbufs_held() > 0 {
            return;
        }
        // SAFETY: initialised, once, and unused from here on, as said above.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

fn init_here(arguments: Vec<CString>) -> Result<(), EalError> {
    let mark = logs::mark();
    logs::open().map_err(|errno| EalError::Failed { errno, log: String::new() })?;
    // DPDK permutes the array and keeps pointers into the strings: they live for ever.
    let arguments: &'static [CString] = arguments.leak();
    let mut pointers: Vec<*mut c_char> =
        arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    let count = i32::try_from(pointers.len()).unwrap_or(i32::MAX);
    pointers.push(std::ptr::null_mut());
    let pointers = pointers.leak();
    // SAFETY: called once a process; `argv` is NULL-terminated and lives for ever; DPDK does not
    // write to the strings (getopt permutes the pointers only).
    let code = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
    if code < 0 {
        let (errno, log) = (Errno::last(), logs::since(mark));
        return Err(match errno.0 {
            libc::EACCES | libc::EPERM => EalError::Permission { errno, log },
            libc::EALREADY => EalError::AlreadyInitialised,
            _ => EalError::Failed { errno, log },
        });
    }
    register_metadata()
}

fn register_metadata() -> Result<(), EalError> {
    let mut field = rte_mbuf_dynfield { name: [0; 64], size: mbuf::META_SIZE, align: 8, flags: 0 };
    for (to, from) in field.name.iter_mut().zip(c"headgate_meta".to_bytes()) {
        *to = *from as c_char;
    }
    // SAFETY: the EAL is initialised and `field` is a filled-in, NUL-terminated description.
    let offset = unsafe { dpdk_sys::rte_mbuf_dynfield_register_offset(&field, mbuf::META_OFFSET) };
    Errno::check(offset).map(|_| ()).map_err(EalError::Metadata)
}

/// DPDK's number of a memory socket: -1 is any.
pub(crate) fn socket_number(socket: Option<u32>) -> i32 {
    socket.and_then(|socket| i32::try_from(socket).ok()).unwrap_or(-1)
}

/// One size of huge page.
#[derive(Clone, Copy, Debug)]
struct HugePages {
    size_kib: u64,
    free: u64,
    reserved: u64,
}

fn free_huge_pages() -> Vec<HugePages> {
    let Ok(folders) = fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let number = |path: std::path::PathBuf| -> u64 {
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let sizes = folders.flatten().filter_map(|folder| {
        let name = folder.file_name().into_string().ok()?;
        let size_kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let free = number(folder.path().join("free_hugepages"));
        let reserved = number(folder.path().join("nr_hugepages"));
        Some(HugePages { size_kib, free, reserved })
    });
    sizes.collect()
}

fn check_huge_pages(wanted_mib: u64, sizes: &[HugePages]) -> Result<(), EalError> {
    // DPDK itself would name a missing permission if there is no page at all.
    let wanted_mib = wanted_mib.max(1);
    let free_kib: u64 = sizes.iter().map(|size| size.size_kib * size.free).sum();
    if free_kib >= wanted_mib * 1024 {
        return Ok(());
    }
    let smallest = sizes.iter().min_by_key(|size| size.size_kib);
    let (page_kib, reserved) = smallest.map_or((2048, 0), |size| (size.size_kib, size.reserved));
    let missing = (wanted_mib * 1024 - free_kib).div_ceil(page_kib);
    Err(EalError::NoHugePages {
        wanted_mib,
        free_mib: free_kib / 1024,
        pages: reserved + missing,
        page_kib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_huge_pages_name_the_value_to_set() {
        let some = HugePages { size_kib: 2048, free: 10, reserved: 74 };
        let error = check_huge_pages(512, &[some]).unwrap_err();
        assert!(error.to_string().contains("sysctl -w vm.nr_hugepages=320 "), "{error}");
        assert!(check_huge_pages(20, &[some]).is_ok());
        assert!(check_huge_pages(21, &[some]).is_err());
        assert!(check_huge_pages(1, &[]).is_err());
        assert!(check_huge_pages(0, &[]).is_err());
    }

    #[test]
    fn arguments_follow_the_options() {
        let huge = EalOptions::default().arguments();
        assert!(huge.contains(&"--in-memory".to_owned()));
        assert!(huge.contains(&"--no-pci".to_owned()));
        let pci = EalOptions { pci: true, ..EalOptions::no_huge(64) }.arguments();
        assert!(pci.contains(&"--no-huge".to_owned()));
        assert!(!pci.contains(&"--no-pci".to_owned()));
        assert!(!pci.contains(&"--in-memory".to_owned()));
    }
}
