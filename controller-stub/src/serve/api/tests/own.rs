//! What Octavia has no word for.

use super::*;

#[tokio::test]
async fn objects_of_the_amphora_are_kept_told_and_judged_by_its_model() {
    let stage = Stage::new("");
    let logs = json!({"connection_logging": true, "user_log_format": "%ci %ST"});
    let made = stage
        .must(
            POST,
            LBS,
            json!({"loadbalancer": {
                "name": "own", "vip_subnet_id": stage.subnet, "amphora": {"user_log_facility": 3},
                "listeners": [{"protocol": "HTTP", "protocol_port": 80, "amphora": logs}],
            }}),
        )
        .await["loadbalancer"]
        .clone();
    assert_eq!(made["amphora"], json!({"user_log_facility": 3}));
    let listener = &made["listeners"][0];
    assert_eq!(listener["amphora"], logs);
    let path = format!("/v2/lbaas/listeners/{}", listener["id"].as_str().unwrap());
    assert_eq!(stage.get(&path).await["listener"]["amphora"], logs);
    // What it does not know is refused with the place, and nothing has changed.
    let put = |amphora: Value| json!({"listener": {"amphora": amphora}});
    let (status, refused) = stage.ask(Method::PUT, &path, put(json!({"colour": "blue"}))).await;
    let reason = refused["faultstring"].as_str().unwrap();
    assert!(status == 400 && reason.contains("listeners[0].amphora.colour"), "{status} {refused}");
    assert_eq!(stage.get(&path).await["listener"]["amphora"], logs);
    for (amphora, why) in [
        (json!("blue"), "Value should be an object"),
        (json!([]), "Value should be an object"),
        (json!({"user_log_format": "x".repeat(200_000)}), "at most 131072 bytes"),
    ] {
        let (status, refused) = stage.ask(Method::PUT, &path, put(amphora)).await;
        assert!(status == 400 && refused.to_string().contains(why), "{why}: {status} {refused}");
    }
    stage.must(Method::PUT, &path, put(Value::Null)).await;
    assert_eq!(stage.get(&path).await["listener"].get("amphora"), None, "nothing is not told");
}
