//! AWS Lambda: the operations that are built, one small file each, over [`Functions`] and [`Invocations`].
//!
//! What the service model says about members is checked before a handler runs; the handlers say the rest, in AWS's
//! words where AWS has words for it.

mod access;
mod account;
mod aliases;
mod code;
mod code_signing;
mod concurrency;
mod configuration;
mod create;
mod delete;
mod errors;
mod event_invoke;
mod get;
mod invocations;
mod invoke;
mod invoke_stream;
mod layer_permissions;
mod layers;
mod list;
mod named;
mod packages;
mod paging;
mod permissions;
mod provisioned;
mod recursion;
mod request;
mod resource_policies;
mod runtime_management;
mod starts;
mod streaming;
mod tags;
#[cfg(test)]
mod tests;
mod update_code;
mod update_configuration;
mod urls;
mod versions;

pub use access::{UrlCall, service_may_invoke, url_may_invoke};
pub use invocations::{EngineInvocations, Invocations};
pub(crate) use invoke::{rejected, stepped, tenant, trace_of};
pub use packages::{Downloads, PACKAGES_PREFIX};
pub use starts::{StartShown, Starts, start_of};
pub use streaming::{Step, Streaming};

use crate::models;
use crate::pipeline::{Operation, Service, ServiceError};
use martlet_environment::Runtimes;
use martlet_functions::Functions;
use martlet_model::limits;
use std::sync::Arc;

/// Largest body of a request that carries a package: 50 MB of zip file as base64, and the rest.
const PACKAGE_BODY_BYTES: usize = 70_167_211;

/// What the handlers of Lambda's operations work with.
pub struct Lambda {
    /// The control plane.
    pub functions: Functions,
    /// What functions may ask for as their runtime.
    pub runtimes: Runtimes,
    /// What runs them.
    pub invocations: Arc<dyn Invocations>,
    /// What makes links to packages, and answers them.
    pub downloads: Arc<Downloads>,
    /// The account's limit of concurrent executions, to be told.
    pub concurrency: u32,
    /// How environments start: what may be asked, and what is known.
    pub starts: Starts,
    /// Whether there is a directory of this machine for the file system's access point of that id.
    pub granted: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Lambda {
    /// Lambda's front end.
    ///
    /// # Errors
    /// The table below does not fit the service model: a mistake in this file.
    pub fn service(self) -> Result<Service, ServiceError> {
        let runtimes = self.runtimes.clone();
        self.functions
            .hold_runtimes(Box::new(move |version| configuration::runtime_version_arn(&runtimes, version)));
        let lambda = Arc::new(self);
        Service::builder(models::LAMBDA, Arc::clone(&lambda))?
            .policies(lambda)
            .on(CREATE, create::create_function)?
            .on(GET, get::get_function)?
            .on(GET_CONFIGURATION, get::get_function_configuration)?
            .on(UPDATE_CODE, update_code::update_function_code)?
            .on(UPDATE_CONFIGURATION, update_configuration::update_function_configuration)?
            .on(DELETE, delete::delete_function)?
            .on(LIST, list::list_functions)?
            .on(concurrency::PUT, concurrency::put_function_concurrency)?
            .on(concurrency::GET, concurrency::get_function_concurrency)?
            .on(concurrency::DELETE, concurrency::delete_function_concurrency)?
            .on(provisioned::PUT, provisioned::put_provisioned_concurrency_config)?
            .on(provisioned::GET, provisioned::get_provisioned_concurrency_config)?
            .on(provisioned::DELETE, provisioned::delete_provisioned_concurrency_config)?
            .on(provisioned::LIST, provisioned::list_provisioned_concurrency_configs)?
            .on(ACCOUNT, account::get_account_settings)?
            .on(TAG, tags::tag_resource)?
            .on(UNTAG, tags::untag_resource)?
            .on(LIST_TAGS, tags::list_tags)?
            .on(PUBLISH, versions::publish_version)?
            .on(LIST_VERSIONS, versions::list_versions_by_function)?
            .on(aliases::CREATE, aliases::create_alias)?
            .on(aliases::GET, aliases::get_alias)?
            .on(aliases::UPDATE, aliases::update_alias)?
            .on(aliases::DELETE, aliases::delete_alias)?
            .on(aliases::LIST, aliases::list_aliases)?
            .on(permissions::ADD, permissions::add_permission)?
            .on(permissions::REMOVE, permissions::remove_permission)?
            .on(permissions::GET_POLICY, permissions::get_policy)?
            .on(resource_policies::PUT, resource_policies::put_resource_policy)?
            .on(resource_policies::GET, resource_policies::get_resource_policy)?
            .on(resource_policies::DELETE, resource_policies::delete_resource_policy)?
            .on(event_invoke::PUT, event_invoke::put)?
            .on(event_invoke::UPDATE, event_invoke::update)?
            .on(event_invoke::GET, event_invoke::get)?
            .on(event_invoke::DELETE, event_invoke::delete)?
            .on(event_invoke::LIST, event_invoke::list)?
            .on(recursion::PUT, recursion::put)?
            .on(recursion::GET, recursion::get)?
            .on(invoke::INVOKE_ASYNC, invoke::invoke_async)?
            .on(invoke_stream::INVOKE_STREAM, invoke_stream::invoke_with_response_stream)?
            .on(urls::CREATE, urls::create)?
            .on(urls::GET, urls::get)?
            .on(urls::UPDATE, urls::update)?
            .on(urls::DELETE, urls::delete)?
            .on(urls::LIST, urls::list)?
            .on(runtime_management::PUT, runtime_management::put)?
            .on(runtime_management::GET, runtime_management::get)?
            .on(code_signing::CREATE, code_signing::create)?
            .on(code_signing::GET, code_signing::get)?
            .on(code_signing::UPDATE, code_signing::update)?
            .on(code_signing::DELETE, code_signing::delete)?
            .on(code_signing::LIST, code_signing::list)?
            .on(code_signing::LIST_FUNCTIONS, code_signing::list_functions)?
            .on(code_signing::PUT_OF_FUNCTION, code_signing::put_of_function)?
            .on(code_signing::GET_OF_FUNCTION, code_signing::get_of_function)?
            .on(code_signing::DELETE_OF_FUNCTION, code_signing::delete_of_function)?
            .on(layers::PUBLISH_LAYER, layers::publish_layer_version)?
            .on(layers::GET_LAYER, layers::get_layer_version)?
            .on(layers::GET_LAYER_BY_ARN, layers::get_layer_version_by_arn)?
            .on(layers::LIST_LAYERS, layers::list_layers)?
            .on(layers::LIST_LAYER_VERSIONS, layers::list_layer_versions)?
            .on(layers::DELETE_LAYER, layers::delete_layer_version)?
            .on(layer_permissions::PERMIT_LAYER, layer_permissions::add_layer_version_permission)?
            .on(layer_permissions::FORBID_LAYER, layer_permissions::remove_layer_version_permission)?
            .on(layer_permissions::GET_LAYER_POLICY, layer_permissions::get_layer_version_policy)?
            .on(INVOKE, invoke::invoke)
            .map(|builder| builder.build())
    }
}

/// Values of members that are not built which ask for nothing: they are what a function has without them.
const OFF: &[(&str, &str)] = &[("TracingConfig.Mode", "PassThrough")];

const CREATE: Operation = Operation::new(
    "CreateFunction",
    "lambda:CreateFunction",
    &[
        "FunctionName",
        "Runtime",
        "Role",
        "Handler",
        "Code.ZipFile",
        "Code.S3Bucket",
        "Code.S3Key",
        "Code.S3ObjectVersion",
        "Code.ImageUri",
        "Description",
        "Timeout",
        "MemorySize",
        "Publish",
        "PackageType",
        "Environment",
        "Tags",
        "Architectures",
        "EphemeralStorage",
        "LoggingConfig",
        "TenancyConfig",
        "DeadLetterConfig",
        "SnapStart",
        "FileSystemConfigs",
        "CodeSigningConfigArn",
        "Layers",
    ],
)
.harmless(OFF)
.body_limit(PACKAGE_BODY_BYTES);

const GET: Operation = Operation::new("GetFunction", "lambda:GetFunction", &["FunctionName", "Qualifier"]);

const GET_CONFIGURATION: Operation = Operation::new(
    "GetFunctionConfiguration",
    "lambda:GetFunctionConfiguration",
    &["FunctionName", "Qualifier"],
);

const UPDATE_CODE: Operation = Operation::new(
    "UpdateFunctionCode",
    "lambda:UpdateFunctionCode",
    &[
        "FunctionName",
        "ZipFile",
        "S3Bucket",
        "S3Key",
        "S3ObjectVersion",
        "ImageUri",
        "Architectures",
        "Publish",
        "DryRun",
        "RevisionId",
    ],
)
.body_limit(PACKAGE_BODY_BYTES);

const UPDATE_CONFIGURATION: Operation = Operation::new(
    "UpdateFunctionConfiguration",
    "lambda:UpdateFunctionConfiguration",
    &[
        "FunctionName",
        "Role",
        "Handler",
        "Description",
        "Timeout",
        "MemorySize",
        "Environment",
        "Runtime",
        "RevisionId",
        "EphemeralStorage",
        "LoggingConfig",
        "DeadLetterConfig",
        "SnapStart",
        "FileSystemConfigs",
        "Layers",
    ],
)
.harmless(OFF);

const DELETE: Operation =
    Operation::new("DeleteFunction", "lambda:DeleteFunction", &["FunctionName", "Qualifier"]);

const LIST: Operation = Operation::new(
    "ListFunctions",
    "lambda:ListFunctions",
    &["MasterRegion", "FunctionVersion", "Marker", "MaxItems"],
);

const ACCOUNT: Operation = Operation::new("GetAccountSettings", "lambda:GetAccountSettings", &[]);

const TAG: Operation = Operation::new("TagResource", "lambda:TagResource", &["Resource", "Tags"]);

const UNTAG: Operation = Operation::new("UntagResource", "lambda:UntagResource", &["Resource", "TagKeys"]);

const LIST_TAGS: Operation = Operation::new("ListTags", "lambda:ListTags", &["Resource"]);

const PUBLISH: Operation = Operation::new(
    "PublishVersion",
    "lambda:PublishVersion",
    &["FunctionName", "CodeSha256", "Description", "RevisionId"],
);

const LIST_VERSIONS: Operation = Operation::new(
    "ListVersionsByFunction",
    "lambda:ListVersionsByFunction",
    &["FunctionName", "Marker", "MaxItems"],
);

const INVOKE: Operation = Operation::new(
    "Invoke",
    "lambda:InvokeFunction",
    &["FunctionName", "InvocationType", "LogType", "ClientContext", "Payload", "Qualifier", "TenantId"],
)
.body_limit(limits::SYNC_REQUEST_BYTES);
