//! Whether there is memory for a step, told before the first one: the kernel would otherwise end the run at its largest moment.
//!
//! What is free is the least of what the kernel says could be had (`MemAvailable`, proc(5)) and what is left of the limit of the
//! control group (cgroups(7), version 2), whose cache of files goes when it must. Where neither is known nothing is refused.

use nncc::Error;
use std::fs::read_to_string;

/// An error if a step takes more than is free.
pub fn require(bytes: u64) -> Result<(), Error> {
    fits(bytes, free(&|path| read_to_string(path).ok()))
}

fn fits(bytes: u64, free: Option<u64>) -> Result<(), Error> {
    let Some(free) = free.filter(|&free| free < bytes) else { return Ok(()) };
    let gigabytes = |n: u64| format!("{:.1} GB", n as f64 / 1e9);
    let (needed, free) = (gigabytes(bytes), gigabytes(free));
    Err(Error::Usage(format!(
        "a step needs {needed} of memory, and {free} are free\n  help: a smaller --batch-size (with --accumulate for the same \
         update), or --recompute auto"
    )))
}

/// Bytes that could be had, by the files that `read` gives.
fn free(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let available = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let number = |file: &str| read(&format!("/sys/fs/cgroup/{file}"))?.trim().parse::<u64>().ok();
    let cached = read("/sys/fs/cgroup/memory.stat")
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse::<u64>().ok());
    let left = number("memory.max").zip(number("memory.current"));
    let left = left.map(|(most, used)| most.saturating_sub(used.saturating_sub(cached.unwrap_or(0))));
    available.into_iter().chain(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_what_is_said_counts() {
        let meminfo = "MemTotal:       24684092 kB\nMemFree:  2632044 kB\nMemAvailable:   2000 kB\n";
        let of = |max: &str, current: &str| {
            let (max, current) = (max.to_string(), current.to_string());
            free(&move |path| match path {
                "/proc/meminfo" => Some(meminfo.to_string()),
                "/sys/fs/cgroup/memory.max" => Some(max.clone()),
                "/sys/fs/cgroup/memory.current" => Some(current.clone()),
                "/sys/fs/cgroup/memory.stat" => Some("anon 9\ninactive_file 1000\n".to_string()),
                _ => None,
            })
        };
        assert_eq!(of("max\n", "7\n"), Some(2_048_000));
        assert_eq!(of("1000000\n", "400000\n"), Some(601_000));
        assert_eq!(of("9000000\n", "10000000\n"), Some(0));
        assert_eq!(free(&|_| None), None);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_helps() {
        assert!(fits(1 << 30, Some(1 << 30)).is_ok() && fits(u64::MAX, None).is_ok());
        let e = fits(41_200_000_000, Some(21_550_000_000)).unwrap_err().to_string();
        assert!(
            e.starts_with("a step needs 41.2 GB of memory, and 21.6 GB are free\n  help: a smaller --batch-size"),
            "{e}"
        );
        // this machine can run a step of a kilobyte
        assert!(require(1024).is_ok());
    }
}
