//! "Every accepted setting is applied, or refused by name": which members an operation applies, as a tree.

use crate::protocol::{Model, ShapeId, Value};

/// The members of one structure, by index.
pub(super) struct Applied(Vec<(&'static str, Rule)>);

enum Rule {
    /// Applied with everything in it.
    Whole,
    /// Not applied; only this value, which means "off", may be there.
    Off(Option<&'static str>),
    /// A structure of which some members are applied.
    Parts(Applied),
}

/// A path of the table that the model does not have.
pub(super) struct UnknownMember(pub(super) &'static str);

impl Applied {
    pub(super) fn new(
        model: &Model,
        input: Option<ShapeId>,
        applied: &'static [&'static str],
        harmless: &'static [(&'static str, &'static str)],
    ) -> Result<Self, UnknownMember> {
        let mut tree = Self::off(model, input);
        for path in applied {
            tree.mark(model, input, path, path, Rule::Whole)?;
        }
        for (path, value) in harmless {
            tree.mark(model, input, path, path, Rule::Off(Some(value)))?;
        }
        Ok(tree)
    }

    fn off(model: &Model, shape: Option<ShapeId>) -> Self {
        let structure = shape.and_then(|shape| model.structure(shape));
        let members = structure.map(|structure| &structure.members[..]).unwrap_or_default();
        Self(members.iter().map(|member| (member.name, Rule::Off(None))).collect())
    }

    fn mark(
        &mut self,
        model: &Model,
        shape: Option<ShapeId>,
        path: &str,
        whole_path: &'static str,
        rule: Rule,
    ) -> Result<(), UnknownMember> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let structure = shape.and_then(|shape| model.structure(shape)).ok_or(UnknownMember(whole_path))?;
        let at = structure.by_name(name).ok_or(UnknownMember(whole_path))?;
        let Some(rest) = rest else {
            self.0[at].1 = rule;
            return Ok(());
        };
        let inner = structure.members[at].shape;
        if !matches!(self.0[at].1, Rule::Parts(_)) {
            self.0[at].1 = Rule::Parts(Self::off(model, Some(inner)));
        }
        match &mut self.0[at].1 {
            Rule::Parts(parts) => parts.mark(model, Some(inner), rest, whole_path, rule),
            Rule::Whole | Rule::Off(_) => Err(UnknownMember(whole_path)),
        }
    }

    /// The path of the first member that is there, asks for something and is not applied.
    pub(super) fn first_refused(&self, members: &[(&'static str, Value)]) -> Option<String> {
        members.iter().find_map(|(name, value)| {
            let (_, rule) = self.0.iter().find(|(member, _)| member == name)?;
            match (rule, value) {
                (Rule::Whole, _) => None,
                (Rule::Parts(parts), Value::Structure(members)) => {
                    parts.first_refused(members).map(|inner| format!("{name}.{inner}"))
                }
                (Rule::Off(Some(off)), Value::Text(text)) if text == off => None,
                (Rule::Off(_) | Rule::Parts(_), value) => (!value.is_empty()).then(|| (*name).to_owned()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing::lambda;

    const APPLIED: &[&str] = &["FunctionName", "Code.ZipFile", "Environment", "LoggingConfig.LogFormat"];
    const HARMLESS: &[(&str, &str)] = &[("TracingConfig.Mode", "PassThrough"), ("PackageType", "Zip")];

    fn applied() -> Applied {
        let model = lambda();
        let input = model.operations[model.operation("CreateFunction").unwrap()].input;
        Applied::new(model, input, APPLIED, HARMLESS).ok().unwrap()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn what_is_not_applied_is_named() {
        let applied = applied();
        let refused = |name, value| applied.first_refused(&[(name, value)]);
        assert_eq!(refused("FunctionName", text("f")), None);
        assert_eq!(refused("Code", Value::Structure(vec![("ZipFile", Value::Blob("PK".into()))])), None);
        assert_eq!(
            refused("Code", Value::Structure(vec![("S3Bucket", text("b"))])),
            Some("Code.S3Bucket".to_owned())
        );
        assert_eq!(refused("KMSKeyArn", text("arn")), Some("KMSKeyArn".to_owned()));
        assert_eq!(
            refused("TracingConfig", Value::Structure(vec![("Mode", text("Active"))])),
            Some("TracingConfig.Mode".to_owned())
        );
    }

    #[test]
    fn values_that_mean_off_pass() {
        let applied = applied();
        let passes = |name, value| applied.first_refused(&[(name, value)]).is_none();
        assert!(passes("TracingConfig", Value::Structure(vec![("Mode", text("PassThrough"))])));
        assert!(passes("PackageType", text("Zip")) && !passes("PackageType", text("Image")));
        assert!(passes("Layers", Value::List(vec![])) && !passes("Layers", Value::List(vec![text("a")])));
        let vpc = Value::Structure(vec![
            ("SubnetIds", Value::List(vec![])),
            ("Ipv6AllowedForDualStack", Value::Bool(false)),
        ]);
        assert!(passes("VpcConfig", vpc) && passes("KMSKeyArn", text("")));
    }

    #[test]
    fn a_table_that_the_model_does_not_have_is_refused() {
        let model = lambda();
        let input = model.operations[model.operation("CreateFunction").unwrap()].input;
        for wrong in [&["Nothing"][..], &["Code.Nothing"], &["Timeout.Seconds"]] {
            let wrong: &'static [&'static str] = Vec::leak(wrong.to_vec());
            assert!(Applied::new(model, input, wrong, &[]).is_err(), "{wrong:?}");
        }
    }
}
