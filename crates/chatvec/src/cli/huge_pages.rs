//! Huge pages for the memory that tensors pass through.
//!
//! A worker between buckets spends a quarter of its CPU time on page faults and
//! on the translation of addresses, and most of that is saved by pages of 2 MiB.
//! Linux gives them to a process that asks (`madvise`, the usual setting), and
//! the C library's allocator asks if a variable says so which it reads before
//! `main`. So the program runs itself once more with the variable set.
//! `docs/decisions/0015-huge-pages-by-running-again.md` has the alternatives.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::env;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    /// What the C library's tunables are read from.
    const VARIABLE: &str = "GLIBC_TUNABLES";
    /// Ask for huge pages where they are given to whoever asks.
    const HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

    /// Runs the program again, as the same process, unless the variable is set:
    /// then this is that run, or the operator has decided. Before any thread is
    /// started. Where it fails, only speed is lost.
    pub(in crate::cli) fn ask() {
        if env::var_os(VARIABLE).is_some() {
            return;
        }
        let mut arguments = env::args_os();
        let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) else {
            return;
        };
        let mut again = Command::new(program);
        again.arg0(name).args(arguments).env(VARIABLE, HUGE_PAGES);
        let _goes_on_without = again.exec();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) use glibc::ask;

/// Other allocators are not asked.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn ask() {}
