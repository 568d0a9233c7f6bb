#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn every_route_is_described_once_and_every_reference_leads_somewhere() {
    let document = document(AuthStrategy::Keystone);
    let mut ids = std::collections::BTreeSet::new();
    for route in ROUTES {
        let (path, names) = path(route.path);
        let entry = &document["paths"][&path];
        let operation = &entry[route.method.as_str().to_lowercase()];
        assert!(operation.is_object(), "{route:?}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{route:?}: {operation}");
        let told: Vec<_> =
            entry["parameters"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
        assert_eq!(told, names.iter().collect::<Vec<_>>(), "{route:?}");
        assert!(names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len(), "{route:?}");
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let reference = reference.split('"').next().unwrap();
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    ids.insert("streamEvents".to_owned());
    for id in text.split("\"operationId\":\"").skip(1) {
        assert!(ids.contains(id.split('"').next().unwrap()));
    }
}
