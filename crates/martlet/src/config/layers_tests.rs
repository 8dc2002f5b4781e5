use super::*;
use crate::config::Config;
use crate::testing::TempDir;
use proptest::prelude::*;

fn inputs(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Inputs {
    Inputs {
        flags: flags.iter().map(|(name, text)| (keys::find(name).unwrap(), (*text).to_owned())).collect(),
        environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        file: None,
        machine: Machine { root: false, memory_mb: 8192 },
    }
}

fn with_file(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Layers, ConfigError> {
    let dir = TempDir::new();
    let path = dir.path().join("some.toml");
    std::fs::write(&path, text).unwrap();
    let mut environment = environment.to_vec();
    environment.push(("HOME", "/home/ada"));
    Layers::load(&Inputs { file: Some(path), ..inputs(&environment, flags) })
}

#[test]
fn each_layer_covers_the_one_below() {
    let file =
        "region = \"eu-west-1\"\naccount_concurrency = 7\ndrain_seconds = 1\n[gateway]\nmax_headers = 50\n";
    let layers = with_file(
        file,
        &[("MARTLET_ACCOUNT_CONCURRENCY", "8"), ("MARTLET_DRAIN_SECONDS", "2")],
        &[("drain_seconds", "3")],
    )
    .unwrap();
    let config = Config::new(&layers).unwrap();
    assert_eq!(config.log_retention_days, 30);
    assert_eq!(config.region.as_str(), "eu-west-1");
    assert_eq!(config.gateway.max_headers, 50);
    assert_eq!(config.account_concurrency, 8);
    assert_eq!(config.drain, Duration::from_secs(3));
    assert_eq!(config.memory_budget_mb, 6144);
    assert!(matches!(layers.origin("region"), Origin::File { line: 1, .. }));
    assert!(matches!(layers.origin("gateway.max_headers"), Origin::File { line: 5, .. }));
    assert_eq!(
        *layers.origin("account_concurrency"),
        Origin::Environment("MARTLET_ACCOUNT_CONCURRENCY".into())
    );
    assert_eq!(layers.origin("drain_seconds").to_string(), "flag --drain-seconds");
    assert_eq!(*layers.origin("tmp"), Origin::Default);
}

#[test]
fn the_data_directory_depends_on_the_user() {
    let data_dir = |root, environment: &[(&str, &str)]| {
        let mut inputs = inputs(environment, &[]);
        inputs.machine.root = root;
        Layers::load(&inputs).map(|layers| layers.path("data_dir"))
    };
    assert_eq!(data_dir(true, &[]).unwrap(), Path::new("/var/lib/martlet"));
    assert_eq!(
        data_dir(false, &[("HOME", "/home/ada")]).unwrap(),
        Path::new("/home/ada/.local/share/martlet")
    );
    assert_eq!(
        data_dir(false, &[("HOME", "/home/ada"), ("XDG_DATA_HOME", "/data")]).unwrap(),
        Path::new("/data/martlet")
    );
    assert!(matches!(data_dir(false, &[]), Err(ConfigError::NoHome)));
}

#[test]
fn the_file_in_the_data_directory_is_found() {
    let dir = TempDir::new();
    std::fs::write(dir.path().join(FILE_NAME), "tmp = \"memory\"\n").unwrap();
    let data_dir = dir.path().to_str().unwrap();
    let layers = Layers::load(&inputs(&[("MARTLET_DATA_DIR", data_dir)], &[])).unwrap();
    assert_eq!(layers.text("tmp"), "memory");

    std::fs::write(dir.path().join(FILE_NAME), "data_dir = \"/elsewhere\"\n").unwrap();
    let refused = Layers::load(&inputs(&[("MARTLET_DATA_DIR", data_dir)], &[])).unwrap_err();
    assert!(refused.to_string().contains("cannot name another"), "{refused}");
}

#[test]
fn unknown_keys_name_the_nearest() {
    let message = |text: &str| with_file(text, &[], &[]).unwrap_err().to_string();
    assert!(message("\nregoin = \"x\"").ends_with(":2: there is no key \"regoin\"; did you mean region?"));
    assert!(message("[gateway]\nmax_header = 9").ends_with("did you mean gateway.max_headers?"));
    assert!(message("[gatway]\nmax_headers = 9").contains("there is no key \"gatway\""));
    assert!(message("zzzzzzzzzzzzzzzzzzzzzzzzzzzz = 1").contains("--print-config"));
    let refused = with_file("", &[("MARTLET_LISTNE", "x")], &[]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the environment sets MARTLET_LISTNE, which Martlet does not know; did you mean MARTLET_LISTEN?"
    );
    assert!(with_file("", &[("MARTLET_ENDPOINT", "http://127.0.0.1:1")], &[]).is_ok());
}

#[test]
fn wrong_values_say_where_and_what_is_taken() {
    let message = |text: &str| with_file(text, &[], &[]).unwrap_err().to_string();
    assert!(
        message("drain_seconds = \"3\"").ends_with("it takes a whole number from 0 to 900, without quotes")
    );
    assert!(message("gateway = 3").contains("there is no key \"gateway\""));
    assert!(message("tmp = \"ram\"").contains("tmp cannot be \"ram\": it takes disk or memory"));
    assert!(message("region = [1]").contains("it takes a string in quotes"));
    assert!(message("region = \n").contains(".toml:1:"));
    let refused = with_file("", &[], &[("listen", "nowhere")]).unwrap_err().to_string();
    assert!(
        refused.starts_with("flag --listen: listen cannot be \"nowhere\": it takes HOST:PORT"),
        "{refused}"
    );
}

#[test]
fn development_mode_stays_on_loopback() {
    let config = |flags: &[(&str, &str)]| Config::new(&with_file("", &[], flags).unwrap());
    assert!(config(&[("dev", "true"), ("listen", "[::1]:1")]).is_ok());
    assert!(config(&[("listen", "0.0.0.0:1")]).is_ok());
    let refused = config(&[("dev", "true"), ("listen", "0.0.0.0:1")]).unwrap_err().to_string();
    assert!(refused.contains("loopback only"), "{refused}");
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(text in "\\PC{0,200}") {
        let _ = read_file(Path::new("x.toml"), &text);
    }
}
