//! Lambda's documented quotas, each in one place (AWS Lambda quotas page; shape bounds of the public model).

/// Largest request payload of a synchronous invocation, in bytes (6 MB).
pub const SYNC_REQUEST_BYTES: usize = 6 * 1024 * 1024;
/// Largest response payload of a synchronous invocation, in bytes (6 MB).
pub const SYNC_RESPONSE_BYTES: usize = 6 * 1024 * 1024;
/// Largest response of an invocation that is streamed, in bytes (200 MB).
pub const STREAMED_RESPONSE_BYTES: usize = 200 * 1024 * 1024;
/// What the Runtime API lets through above [`SYNC_RESPONSE_BYTES`], as AWS's own emulator does.
pub const RESPONSE_SLACK_BYTES: usize = 100;
/// Largest payload of an asynchronous invocation, in bytes (1 MB).
pub const ASYNC_REQUEST_BYTES: usize = 1024 * 1024;
/// Largest zip file that an API call may carry, in bytes (50 MB).
pub const ZIP_BYTES: usize = 50 * 1024 * 1024;
/// Largest package once it is unpacked, in bytes (250 MB).
pub const UNPACKED_BYTES: u64 = 250 * 1024 * 1024;
/// Most layers of one function.
pub const LAYERS: usize = 5;
/// Most entries that a package may have; ours, so that an archive of empty files cannot exhaust inodes.
pub const PACKAGE_ENTRIES: usize = 100_000;
/// Longest timeout of an ordinary function, in seconds.
pub const TIMEOUT_SECONDS: u32 = 900;
/// Timeout of a function that asks for none, in seconds.
pub const DEFAULT_TIMEOUT_SECONDS: u32 = 3;
/// Smallest and default memory, in MB.
pub const MIN_MEMORY_MB: u32 = 128;
/// Largest memory of an ordinary function, in MB.
pub const MAX_MEMORY_MB: u32 = 10_240;
/// Memory that buys one full virtual CPU, in MB; the share is proportional below and above.
pub const MEMORY_MB_PER_CPU: u32 = 1_769;
/// Smallest and default size of `/tmp`, in MB.
pub const MIN_EPHEMERAL_MB: u32 = 512;
/// Largest size of `/tmp` of an ordinary function, in MB.
pub const MAX_EPHEMERAL_MB: u32 = 10_240;
/// All names and values of the environment variables together, in bytes (4 KB).
pub const ENVIRONMENT_BYTES: usize = 4 * 1024;
/// Longest decoded client context, in bytes.
pub const CLIENT_CONTEXT_BYTES: usize = 3_583;
/// How long the init phase may take, in milliseconds.
pub const INIT_MILLIS: u64 = 10_000;
/// How long it may take at least where the environment is provisioned, in milliseconds.
pub const PROVISIONED_INIT_MILLIS: u64 = 130_000;
/// How much of an invocation's log `LogType=Tail` returns, in bytes.
pub const LOG_TAIL_BYTES: usize = 4 * 1024;
/// Concurrent executions of an account.
pub const ACCOUNT_CONCURRENCY: u32 = 1_000;
/// Open files in one execution environment.
pub const OPEN_FILES: u64 = 1_024;
/// Processes and threads in one execution environment.
pub const PROCESSES: u64 = 1_024;
/// Code storage of an account, in bytes (75 GB).
pub const CODE_STORAGE_BYTES: u64 = 75 * 1024 * 1024 * 1024;
/// Most aliases of one function; ours, so that a function's record stays of a size that is written often.
pub const ALIASES: usize = 1_000;
/// Largest resource policy, in bytes of JSON (20 KB).
pub const POLICY_BYTES: usize = 20 * 1024;
/// Most tags on one function.
pub const TAGS: usize = 50;

/// The CPU share that `memory_mb` buys, in thousandths of one CPU, never less than 1.
#[must_use]
pub fn cpu_millis(memory_mb: u32) -> u32 {
    (u64::from(memory_mb) * 1000 / u64::from(MEMORY_MB_PER_CPU)).max(1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cpu_at_1769_mb_and_proportional_elsewhere() {
        assert_eq!(cpu_millis(MEMORY_MB_PER_CPU), 1000);
        assert_eq!(cpu_millis(128), 72);
        assert_eq!(cpu_millis(2 * MEMORY_MB_PER_CPU), 2000);
        assert_eq!(cpu_millis(0), 1);
    }
}
