//! Which functions a chain of requests has run: the `Lineage` of a trace header, by which loops are noticed.
//!
//! A trace header is `Root=...;Parent=...;Sampled=...;Lineage=1:HASH:COUNT|1:HASH:COUNT`. Each entry names a function by a short
//! hash of its ARN and counts how often it has run in the chain before. SDKs pass the header on from the environment that they
//! run in, so it comes back when a function leads to itself, however many others stand in between.

use crate::arn::FunctionArn;
use std::fmt::Write as _;

/// How often one function may run in one chain of requests.
pub const MOST_RUNS: u32 = 16;
/// Longest trace header that is passed on; what is longer starts a new trace.
pub const LONGEST_TRACE: usize = 2_048;
/// Most functions that a lineage remembers, the latest: a loop through more of them is not noticed.
const MOST_ENTRIES: usize = 64;
const KEY: &str = "Lineage=";

/// A function that has been in its own chain of requests too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function has run {MOST_RUNS} times in the same chain of requests")]
pub struct Recursive;

/// The trace header that `function` is to see when a request with the header `trace` runs it, and whether that makes one run too
/// many. What of the lineage cannot be read is dropped.
pub fn step(trace: &str, function: &FunctionArn) -> (String, Result<(), Recursive>) {
    let own = hash(function);
    let mut stepped = String::with_capacity(trace.len() + 24);
    let mut entries: Vec<(&str, u32)> = Vec::new();
    for part in trace.split(';').filter(|part| !part.is_empty()) {
        match part.strip_prefix(KEY) {
            Some(lineage) => entries.extend(lineage.split('|').filter_map(entry)),
            None => {
                if !stepped.is_empty() {
                    stepped.push(';');
                }
                stepped.push_str(part);
            }
        }
    }
    let before = entries.iter().position(|(hash, _)| *hash == own);
    // The one that runs now stands last, so that the oldest are forgotten first.
    let runs = before.map_or(0, |at| entries.remove(at).1.saturating_add(1));
    entries.push((&own, runs));
    let forgotten = entries.len().saturating_sub(MOST_ENTRIES);
    let mut separator = if stepped.is_empty() { KEY } else { ";Lineage=" };
    for (hash, count) in &entries[forgotten..] {
        // Writing into memory does not fail.
        let _ = write!(stepped, "{separator}1:{hash}:{count}");
        separator = "|";
    }
    (stepped, if runs < MOST_RUNS { Ok(()) } else { Err(Recursive) })
}

/// `HASH:COUNT`, with or without the version before it.
fn entry(text: &str) -> Option<(&str, u32)> {
    let text = text.strip_prefix("1:").unwrap_or(text);
    let (hash, count) = text.split_once(':')?;
    let hexadecimal = hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((hash, count.parse().ok()?)).filter(|_| hexadecimal)
}

/// FNV-1a, folded to eight digits: the same for a function wherever and whenever it is worked out.
fn hash(function: &FunctionArn) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in [function.region.as_str(), function.account.as_str(), function.name.as_str()] {
        for byte in part.bytes().chain([b':']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("{:08x}", (hash >> 32) as u32 ^ hash as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccountId, FunctionName, Region};

    const TRACE: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";

    fn function(name: &str) -> FunctionArn {
        FunctionArn {
            region: Region::new("us-east-1").unwrap(),
            account: AccountId::new("000000000000").unwrap(),
            name: FunctionName::new(name).unwrap(),
        }
    }

    #[test]
    fn the_seventeenth_run_of_a_chain_is_one_too_many() {
        let mut trace = TRACE.to_owned();
        for run in 0..20 {
            for name in ["a", "b"] {
                let (next, judged) = step(&trace, &function(name));
                assert_eq!(judged.is_ok(), run < MOST_RUNS, "run {run} of {name}");
                trace = next;
            }
        }
        assert!(trace.starts_with(&format!("{TRACE};Lineage=1:")), "{trace}");
        assert!(trace.ends_with(":19") && trace.matches('|').count() == 1, "{trace}");
    }

    #[test]
    fn functions_are_told_apart_and_the_oldest_forgotten() {
        let mut trace = String::new();
        for number in 0..200 {
            let (next, judged) = step(&trace, &function(&format!("f{number}")));
            assert_eq!(judged, Ok(()));
            trace = next;
        }
        assert_eq!(trace.matches(":0").count(), MOST_ENTRIES);
        assert!(trace.starts_with(KEY) && trace.len() < LONGEST_TRACE, "{} bytes", trace.len());
        assert!(step(&trace, &function("f199")).0.ends_with(":1"));
        assert!(step(&trace, &function("f0")).0.ends_with(":0"));
    }

    #[test]
    fn lineages_of_others_are_read_and_broken_ones_dropped() {
        let own = hash(&function("a"));
        let (trace, _) = step(
            &format!("Root=1;Lineage={own}:4|68fd508a:5|nonsense|1:xyz:3|1:68fd:x;Self=1"),
            &function("a"),
        );
        assert_eq!(trace, format!("Root=1;Self=1;Lineage=1:68fd508a:5|1:{own}:5"));
        let (_, judged) = step(&format!("Lineage=1:{own}:4294967295"), &function("a"));
        assert_eq!(judged, Err(Recursive));
        for broken in ["", ";", ";;=", "Lineage=", "Lineage=|||"] {
            assert!(step(broken, &function("a")).0.ends_with(&format!("Lineage=1:{own}:0")), "{broken:?}");
        }
    }
}
