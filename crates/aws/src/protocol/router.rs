//! From method and path to an operation: the URI templates of a rest-json service as one tree of segments.
//!
//! Segments are matched as they came, still percent-encoded, so an encoded slash stays within its label. A trailing
//! slash is of no matter: older SDKs send one where newer models have none.

use super::model::{Model, OperationModel};
use super::uri;
use http::Method;

/// Most labels that a template may have; the models have three.
const MAX_LABELS: usize = 4;

/// Every template of one service.
#[derive(Default)]
pub(crate) struct Router {
    root: Node,
}

#[derive(Default)]
struct Node {
    literals: Vec<(&'static str, Node)>,
    label: Option<Box<Node>>,
    routes: Vec<Route>,
}

struct Route {
    method: Method,
    /// The `?name=value` that tells operations of one method and path apart.
    query: Option<(&'static str, &'static str)>,
    operation: usize,
}

/// Where in the path the labels are, in the template's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    spans: [(u32, u32); MAX_LABELS],
    count: usize,
}

impl Labels {
    /// The labels of `path`, still percent-encoded; `path` must be the one that was matched.
    pub(crate) fn of<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> {
        self.spans.into_iter().take(self.count).map(|(start, end)| &path[start as usize..end as usize])
    }

    fn with(mut self, start: usize, end: usize) -> Self {
        if let Some(span) = self.spans.get_mut(self.count) {
            *span = (start as u32, end as u32);
            self.count += 1;
        }
        self
    }
}

impl Router {
    pub(crate) fn new(model: &Model) -> Self {
        let mut router = Self::default();
        for (at, operation) in model.operations.iter().enumerate() {
            router.add(at, operation);
        }
        router
    }

    fn add(&mut self, at: usize, operation: &OperationModel) {
        let (path, query) = match operation.uri.split_once('?') {
            Some((path, query)) => (path, Some(query.split_once('=').unwrap_or((query, "")))),
            None => (operation.uri, None),
        };
        let mut node = &mut self.root;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            node = if segment.starts_with('{') {
                node.label.get_or_insert_default()
            } else {
                let known = node.literals.iter().position(|(literal, _)| *literal == segment);
                let known = known.unwrap_or_else(|| {
                    node.literals.push((segment, Node::default()));
                    node.literals.len() - 1
                });
                &mut node.literals[known].1
            };
        }
        let route = Route { method: operation.method.clone(), query, operation: at };
        // The more particular one is asked first.
        let place = if query.is_some() { 0 } else { node.routes.len() };
        node.routes.insert(place, route);
    }

    /// The operation of a request, and where its labels are.
    pub(crate) fn find(&self, method: &Method, path: &str, query: &str) -> Option<(usize, Labels)> {
        let path_end = path.trim_end_matches('/').len();
        walk(&self.root, method, path, 1.min(path_end), path_end, query, Labels::default())
    }
}

fn walk(
    node: &Node,
    method: &Method,
    path: &str,
    start: usize,
    path_end: usize,
    query: &str,
    labels: Labels,
) -> Option<(usize, Labels)> {
    if start >= path_end {
        let route = node.routes.iter().find(|route| route.method == *method && route.accepts(query))?;
        return Some((route.operation, labels));
    }
    let end = path[start..path_end].find('/').map_or(path_end, |at| start + at);
    let segment = &path[start..end];
    // A segment between two slashes that is empty names nothing, and would make a label empty.
    if segment.is_empty() {
        return None;
    }
    let literal = node.literals.iter().find(|(literal, _)| *literal == segment);
    let found = literal.and_then(|(_, next)| walk(next, method, path, end + 1, path_end, query, labels));
    found.or_else(|| {
        let next = node.label.as_deref()?;
        walk(next, method, path, end + 1, path_end, query, labels.with(start, end))
    })
}

impl Route {
    fn accepts(&self, query: &str) -> bool {
        self.query.is_none_or(|wanted| uri::pairs(query).any(|pair| pair == wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::testing::lambda;
    use super::*;
    use proptest::prelude::*;

    fn router() -> (&'static Model, Router) {
        (lambda(), Router::new(lambda()))
    }

    fn found(method: &Method, path: &str, query: &str) -> Option<(&'static str, Vec<String>)> {
        let (model, router) = router();
        let (at, labels) = router.find(method, path, query)?;
        Some((model.operations[at].name, labels.of(path).map(str::to_owned).collect()))
    }

    #[test]
    fn paths_name_operations() {
        let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found(&Method::POST, "/2015-03-31/functions/f/invocations", ""),
            Some(("Invoke", labels(&["f"])))
        );
        assert_eq!(found(&Method::POST, "/2015-03-31/functions/", ""), Some(("CreateFunction", labels(&[]))));
        assert_eq!(found(&Method::GET, "/2018-10-31/layers", ""), Some(("ListLayers", labels(&[]))));
        assert_eq!(
            found(&Method::GET, "/2018-10-31/layers", "find=LayerVersion&Arn=x"),
            Some(("GetLayerVersionByArn", labels(&[])))
        );
        assert_eq!(
            found(&Method::GET, "/2017-03-31/tags/arn%3Aaws%2Fx", ""),
            Some(("ListTags", labels(&["arn%3Aaws%2Fx"])))
        );
        assert_eq!(
            found(&Method::DELETE, "/2018-10-31/layers/l/versions/3/policy/s", ""),
            Some(("RemoveLayerVersionPermission", labels(&["l", "3", "s"])))
        );
    }

    #[test]
    fn what_no_template_has_is_not_found() {
        for (method, path) in [
            (Method::PATCH, "/2015-03-31/functions/f"),
            (Method::GET, "/2015-03-31/functions/f/nothing"),
            (Method::GET, "/2015-03-31/functions//code"),
            (Method::GET, "/"),
            (Method::GET, ""),
            (Method::GET, "//"),
            (Method::GET, "/2015-03-31"),
        ] {
            assert_eq!(found(&method, path, ""), None, "{path}");
        }
    }

    #[test]
    fn every_template_finds_its_own_operation() {
        let (model, router) = router();
        for (at, operation) in model.operations.iter().enumerate() {
            let (path, query) = operation.uri.split_once('?').unwrap_or((operation.uri, ""));
            let path: Vec<_> =
                path.split('/').map(|part| if part.starts_with('{') { "label" } else { part }).collect();
            let found = router.find(&operation.method, &path.join("/"), query).map(|(found, _)| found);
            assert_eq!(found, Some(at), "{}", operation.name);
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "/[/a-z0-9%{}.-]{0,40}", query in "[a-z=&%]{0,20}") {
            let (_, router) = router();
            if let Some((_, labels)) = router.find(&Method::GET, &path, &query) {
                labels.of(&path).for_each(drop);
            }
        }
    }
}
