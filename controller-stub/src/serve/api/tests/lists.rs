//! Filters, sorting, pages, fields and tags.

use proptest::prelude::*;

use super::*;

fn names(list: &Value) -> Vec<String> {
    let list = list["listeners"].as_array().unwrap();
    list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

async fn filled(listeners: &[(&str, u16, &[&str])]) -> (Stage, String) {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    for (name, port, tags) in listeners {
        let body = json!({
            "loadbalancer_id": balancer, "protocol": "TCP", "protocol_port": port, "name": name, "tags": tags,
            "admin_state_up": port % 2 == 0,
        });
        stage.make(LISTENERS, "listener", body).await;
    }
    (stage, balancer)
}

#[tokio::test]
async fn lists_are_filtered_by_any_attribute() {
    let (stage, balancer) =
        filled(&[("a", 80, &["x", "y"]), ("b", 81, &["x"]), ("c", 82, &[]), ("d", 83, &["y", "z"])]).await;
    for (query, expected) in [
        ("", &["a", "b", "c", "d"][..]),
        ("name=b", &["b"]),
        ("name=e", &[]),
        ("protocol_port=82", &["c"]),
        ("protocol_port=x", &[]),
        ("admin_state_up=True", &["a", "c"]),
        ("admin_state_up=false&protocol=TCP", &["b", "d"]),
        ("tags=x", &["a", "b"]),
        ("tags=x,y", &["a"]),
        ("tags=x&tags=y", &["a"]),
        ("tags-any=x,z", &["a", "b", "d"]),
        ("not-tags=x,y", &["b", "c", "d"]),
        ("not-tags-any=x,z", &["c"]),
        ("tags=y&not-tags=z", &["a"]),
        ("sort=name:desc", &["d", "c", "b", "a"]),
        ("sort=admin_state_up:desc,protocol_port:desc", &["c", "a", "d", "b"]),
        ("sort_key=protocol_port&sort_dir=desc&limit=2", &["d", "c"]),
        ("sort_key=admin_state_up,name&sort_dir=asc,desc", &["d", "b", "c", "a"]),
        ("project_id=default", &["a", "b", "c", "d"]),
        ("project_id=other", &[]),
    ] {
        let list = stage.get(&format!("{LISTENERS}?sort=protocol_port&{query}")).await;
        let sorts = query.contains("sort");
        let list = if sorts { stage.get(&format!("{LISTENERS}?{query}")).await } else { list };
        assert_eq!(names(&list), expected, "{query}");
    }
    let of = stage.get(&format!("{LISTENERS}?loadbalancer_id={balancer}")).await;
    assert_eq!(names(&of).len(), 4);
    for (query, text) in [
        ("foo=1", "One or more arguments are either duplicate or invalid"),
        ("name=a&name=b", "One or more arguments are either duplicate or invalid"),
        ("sort=foo", "Supplied sort key 'foo' is not valid."),
        ("sort=name:up", "Supplied sort direction 'up' is not valid."),
        ("sort=name:asc:desc", "Supplied sort key"),
        ("limit=x", "Supplied pagination limit 'x' is not valid."),
        ("marker=x", "Supplied pagination marker 'x' is not valid."),
    ] {
        stage.refused(GET, &format!("{LISTENERS}?{query}"), Value::Null, 400, text).await;
    }
}

#[tokio::test]
async fn lists_are_in_the_order_of_making() {
    let ports: Vec<u16> = (0..20).map(|n| 80 + n * 7 % 20).collect();
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    for port in &ports {
        stage.listener(&balancer, *port).await;
        // Of two in one millisecond nobody knows which was first.
        let before = stage.rows("SELECT CAST(unixepoch('subsec') * 1000 AS TEXT)").await;
        while stage.rows("SELECT CAST(unixepoch('subsec') * 1000 AS TEXT)").await == before {}
    }
    let list = stage.get(LISTENERS).await["listeners"].clone();
    let told: Vec<_> =
        list.as_array().unwrap().iter().map(|one| one["protocol_port"].as_u64().unwrap()).collect();
    assert_eq!(told, ports.into_iter().map(u64::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_the_fields_that_are_asked_for_are_told() {
    let (stage, balancer) = filled(&[("a", 80, &[])]).await;
    let list = stage.get(&format!("{LISTENERS}?fields=name&fields=protocol,foo")).await;
    assert_eq!(list["listeners"], json!([{"name": "a", "protocol": "TCP"}]));
    let one = stage.get(&format!("{LBS}/{balancer}?fields=id")).await;
    assert_eq!(one, json!({"loadbalancer": {"id": balancer}}));
}

#[tokio::test]
async fn links_keep_filters() {
    let (stage, _) = filled(&[("a", 80, &["x"]), ("b", 81, &["x"]), ("c", 82, &["x"])]).await;
    let page = stage.get(&format!("{LISTENERS}?limit=2&sort=name:asc&tags=x&fields=name")).await;
    let next = page["listeners_links"][0]["href"].as_str().unwrap();
    assert!(
        next.starts_with(
            "http://lb.example:9876/v2/lbaas/listeners?limit=2&sort=name:asc&tags=x&fields=name&marker="
        ),
        "{next}"
    );
    let page = stage.get(next.strip_prefix("http://lb.example:9876").unwrap()).await;
    assert_eq!(page["listeners"], json!([{"name": "c"}]));
    assert_eq!(page["listeners_links"][0]["rel"], "previous");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Page by page, forwards and backwards, a list is what it is as a whole.
    #[test]
    fn pages_are_the_whole(
        listeners in prop::collection::vec(("[ab]{0,1}", prop::bool::ANY), 1..9),
        limit in 1_usize..5,
        sort in prop::sample::select(vec!["name", "name:desc", "admin_state_up:desc,name:asc", "protocol_port:desc", "updated_at,name"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stage = Stage::new("");
            let balancer = stage.load_balancer("one").await;
            for (at, (name, up)) in listeners.iter().enumerate() {
                let body = json!({"loadbalancer_id": balancer, "protocol": "TCP", "protocol_port": 80 + at, "name": name,
                    "admin_state_up": up});
                stage.make(LISTENERS, "listener", body).await;
            }
            let ids = |list: &Value| -> Vec<String> {
                list["listeners"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
            };
            let follow = async |list: &Value, rel: &str| {
                let links = list["listeners_links"].as_array().unwrap();
                let link = links.iter().find(|link| link["rel"] == rel)?;
                Some(stage.get(link["href"].as_str().unwrap().strip_prefix("http://lb.example:9876").unwrap()).await)
            };
            let whole = ids(&stage.get(&format!("{LISTENERS}?sort={sort}")).await);
            prop_assert_eq!(whole.len(), listeners.len());
            let mut page = stage.get(&format!("{LISTENERS}?sort={sort}&limit={limit}")).await;
            let mut forwards = ids(&page);
            let mut last = page.clone();
            while let Some(next) = follow(&page, "next").await {
                forwards.extend(ids(&next));
                if !ids(&next).is_empty() {
                    last = next.clone();
                }
                page = next;
            }
            prop_assert_eq!(&forwards, &whole);
            let mut backwards = ids(&last);
            let mut page = last;
            while let Some(before) = follow(&page, "previous").await {
                let mut more = ids(&before);
                more.extend(backwards);
                backwards = more;
                page = before;
            }
            prop_assert_eq!(&backwards, &whole);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn who_says_the_same_again_and_again_asks_no_more() {
    let stage = Stage::new("");
    let id = stage.load_balancer("one").await;
    let answer = stage.get(&format!("{LBS}?sort_key={}name&marker={id}", "name,".repeat(3000))).await;
    assert_eq!(answer["loadbalancers"], json!([]));
    let answer = stage.get(&format!("{LBS}?not-tags={}b", "a,".repeat(3000))).await;
    assert_eq!(answer["loadbalancers"].as_array().unwrap().len(), 1);
    let many: Vec<_> = (0..101).map(|n| format!("t{n}")).collect();
    stage
        .refused(GET, &format!("{LBS}?tags={}", many.join(",")), Value::Null, 400, "may have 100 tags")
        .await;
}
