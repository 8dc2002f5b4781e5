//! Where a function's code comes from.

use super::errors::invalid;
use crate::protocol::{ApiError, Blob};
use bytes::Bytes;
use serde::Deserialize;

/// `FunctionCode` of CreateFunction; the same members lie flat in UpdateFunctionCode.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CodeSource {
    zip_file: Option<Blob>,
    #[serde(rename = "S3Bucket")]
    s3_bucket: Option<String>,
    #[serde(rename = "S3Key")]
    s3_key: Option<String>,
    #[serde(rename = "S3ObjectVersion")]
    s3_object_version: Option<String>,
    image_uri: Option<String>,
}

impl CodeSource {
    /// The zip file, which is the only source that is built.
    pub(super) fn into_zip(self) -> Result<Bytes, ApiError> {
        let from_s3 = self.s3_bucket.is_some() || self.s3_key.is_some() || self.s3_object_version.is_some();
        match self.zip_file {
            Some(_) if from_s3 || self.image_uri.is_some() => {
                Err(invalid("Please do not provide other FunctionCode parameters when providing a ZipFile."))
            }
            Some(zip) if zip.0.is_empty() => Err(invalid("Uploaded file must be a non-empty zip")),
            Some(zip) => Ok(zip.0),
            None if from_s3 => Err(invalid(
                "Code from Amazon S3 (S3Bucket, S3Key, S3ObjectVersion) is not implemented in this version of Martlet; send the \
                 package itself as ZipFile",
            )),
            None if self.image_uri.is_some() => Err(images_are_not_built()),
            None => Err(invalid("Please provide a source for function code.")),
        }
    }
}

pub(super) fn images_are_not_built() -> ApiError {
    invalid(
        "Functions made of container images (PackageType Image, ImageUri) are not implemented in this version of \
         Martlet; use PackageType Zip",
    )
}
