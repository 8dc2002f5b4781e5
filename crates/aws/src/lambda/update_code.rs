//! UpdateFunctionCode.

use super::Lambda;
use super::code::CodeSource;
use super::configuration::FunctionConfiguration;
use super::errors::refused;
use super::named::Named;
use super::request::FunctionRequest;
use crate::pipeline::Ctx;
use crate::protocol::{ApiError, Input, Output};
use martlet_functions::CodeUpdate;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    function_name: String,
    architectures: Option<Vec<String>>,
    publish: Option<bool>,
    dry_run: Option<bool>,
    revision_id: Option<String>,
    #[serde(flatten)]
    code: CodeSource,
}

pub(super) async fn update_function_code(
    lambda: Arc<Lambda>,
    ctx: Ctx,
    input: Input,
) -> Result<Output, ApiError> {
    let request: Request = input.parse()?;
    let function = Named::unqualified(&ctx, "UpdateFunctionCode", &request.function_name)?;
    let publish = request.publish.unwrap_or_default();
    let update = CodeUpdate {
        architecture: FunctionRequest::architecture(request.architectures.as_deref())?,
        zip: request.code.into_zip()?,
        publish,
        dry_run: request.dry_run.unwrap_or_default(),
        expected_revision: request.revision_id,
    };
    let updated = lambda.functions.update_code(&function, update).await.map_err(refused)?;
    let qualifier = publish.then(|| updated.version.version.qualifier());
    Output::json(&FunctionConfiguration::new(&lambda, &updated, qualifier.as_ref()))
}
