//! GetAccountSettings.

use super::Lambda;
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_model::limits;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    account_limit: Limit,
    account_usage: Usage,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Limit {
    total_code_size: u64,
    code_size_unzipped: u64,
    code_size_zipped: usize,
    concurrent_executions: u32,
    unreserved_concurrent_executions: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    total_code_size: u64,
    function_count: u64,
}

pub(super) async fn get_account_settings(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    _input: Input,
) -> Result<Output, ApiError> {
    let usage = lambda.functions.usage(ctx.account(), &ctx.region);
    Output::json(&Answer {
        account_limit: Limit {
            total_code_size: limits::CODE_STORAGE_BYTES,
            code_size_unzipped: limits::UNPACKED_BYTES,
            code_size_zipped: limits::ZIP_BYTES,
            concurrent_executions: lambda.concurrency,
            unreserved_concurrent_executions: super::concurrency::unreserved(&lambda),
        },
        account_usage: Usage { total_code_size: usage.code_bytes, function_count: usage.functions },
    })
}
