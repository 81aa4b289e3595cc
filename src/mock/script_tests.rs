//! Rules as they are written, and when each applies.

use super::*;

fn script(rules: &[&str]) -> Script {
    let mut script = Script::default();
    for rule in rules {
        script.add_text(Kind::Apns, rule).expect(rule);
    }
    script
}

fn find(script: &mut Script, path: &str, token: Option<&str>, dice: &mut Dice) -> usize {
    let asked = Asked {
        target: path.to_string(),
        ..Asked::default()
    };
    let sight = Sight {
        is_push: token.is_some(),
        token: token.unwrap_or_default().to_string(),
        ..Sight::default()
    };
    script
        .find(&asked, &sight, dice)
        .map_or(0, |rule| rule.number)
}

/// Which rule applies to a push for each token in turn; 0: none.
fn applied(rules: &[&str], tokens: &[&str]) -> Vec<usize> {
    let (mut script, mut dice) = (script(rules), Dice::new([1; 16]));
    let all = tokens.iter();
    all.map(|token| find(&mut script, "/3/device/x", Some(token), &mut dice))
        .collect()
}

#[test]
fn the_first_rule_that_fits_is_obeyed() {
    let rules = ["token=dead* answer=410", "token=*d* answer=503", "delay=1s"];
    assert_eq!(applied(&rules, &["dead1", "a-d", "x"]), [1, 2, 3]);
    assert_eq!(applied(&rules[..2], &["x"]), [0]);
}

#[test]
fn patterns_fit_whole_texts() {
    for (pattern, good, bad) in [
        ("abc", &["abc"][..], &["abcd", "ab", ""][..]),
        ("a*", &["a", "abc"], &["ba", ""]),
        ("*c", &["c", "abc"], &["cb"]),
        ("a*c*e", &["ace", "abcde", "acce"], &["ae", "aec", "acf"]),
        ("*", &["", "x"], &[]),
        ("a**b", &["ab", "axb"], &["a"]),
        ("ab*ab", &["abab"], &["ab", "aba"]),
    ] {
        good.iter()
            .for_each(|text| assert!(fits(pattern, text), "{pattern} {text}"));
        bad.iter()
            .for_each(|text| assert!(!fits(pattern, text), "{pattern} {text}"));
    }
}

#[test]
fn counts_are_of_what_the_patterns_fit() {
    let every = ["token=a every=3 answer=503"];
    assert_eq!(
        applied(&every, &["a", "b", "a", "a", "b", "a"]),
        [0, 0, 0, 1, 0, 0]
    );
    let nth = ["nth=2-3 answer=503", "nth=2 answer=500"];
    // The second rule counts only what the first left over.
    assert_eq!(applied(&nth, &["x"; 5]), [0, 1, 1, 2, 0]);
}

#[test]
fn chance_is_as_often_as_was_said() {
    let often = |rule: &str| {
        let all = applied(&[rule], &["x"; 2000]);
        all.iter().filter(|number| **number > 0).count()
    };
    assert_eq!(
        (often("chance=0 delay=1s"), often("chance=100% delay=1s")),
        (0, 2000)
    );
    let some = often("chance=25% delay=1s");
    assert!((400..600).contains(&some), "{some}");
}

#[test]
fn only_a_rule_that_names_a_path_is_for_what_is_no_push() {
    let mut script = script(&["answer=503", "path=/token answer=500"]);
    let mut dice = Dice::new([1; 16]);
    assert_eq!(find(&mut script, "/token", None, &mut dice), 2);
    assert_eq!(find(&mut script, "/other?/token", None, &mut dice), 0);
    assert_eq!(find(&mut script, "/token", Some("x"), &mut dice), 1);
}

#[test]
fn deeds_are_read() {
    let deed = |text: &str| script(&[text]).rules.remove(0).deed;
    let answer = |status, word: &str| Deed::Answer {
        status,
        word: word.to_string(),
        goaway: None,
    };
    assert_eq!(deed("answer=Unregistered"), answer(410, "Unregistered"));
    assert_eq!(deed("answer=410"), answer(410, "Unregistered"));
    assert_eq!(deed("answer=418"), answer(418, ""));
    assert_eq!(deed("answer=403:NewReason"), answer(403, "NewReason"));
    assert_eq!(deed("silence"), Deed::Silence);
    assert_eq!(deed("reset=REFUSED_STREAM"), Deed::Reset(7));
    assert_eq!(deed("reset=8"), Deed::Reset(8));
    assert_eq!(deed("close"), Deed::Cut);
    assert_eq!(deed("delay=200ms"), Deed::Nothing);
    let goaway = GoAway {
        reason: "Shutdown".to_string(),
        code: 2,
        last: Some(0),
    };
    let text = "goaway=Shutdown code=INTERNAL_ERROR last=0";
    assert_eq!(deed(text), Deed::GoAway(goaway.clone()));
    let Deed::Answer { goaway: behind, .. } = deed(&format!("answer=ok {text}")) else {
        panic!("an answer");
    };
    assert_eq!(behind, Some(goaway));
}

#[test]
fn times_have_units() {
    let delay = |text: &str| script(&[&format!("delay={text}")]).rules[0].delay;
    assert_eq!(delay("200ms"), Duration::from_millis(200));
    assert_eq!(delay("1.5s"), Duration::from_millis(1500));
    assert_eq!(delay("2m"), Duration::from_secs(120));
}

#[test]
fn a_mistake_is_named() {
    for (text, words) in [
        ("", "it does nothing"),
        ("token=a", "it does nothing"),
        ("token= silence", "`token` wants a value"),
        ("tokn=a silence", "`tokn` is unknown"),
        ("silence=1", "`silence` takes no value"),
        ("silence silence", "`silence` is there twice"),
        ("silence close", "only one of"),
        ("reset=1 goaway", "only one of"),
        ("every=0 silence", "`every` counts from 1"),
        ("every=x silence", "`every=x` is no number"),
        ("nth=5-3 silence", "such as 3-5"),
        ("chance=200% silence", "neither 0 to 1"),
        ("answer=Unregisterd", "`Unregisterd` is no answer of apns"),
        ("answer=99", "`99` is no answer"),
        ("answer=99:X", "`99` is no status"),
        ("reset=WHAT", "REFUSED_STREAM"),
        ("delay=5", "`5` is no time"),
        ("delay=-1s", "is no time"),
        ("delay=1s code=1", "belong to `goaway`"),
        ("delay=1s body=x", "belongs to `answer`"),
    ] {
        let refused = Script::default().add_text(Kind::Apns, text);
        let why = refused.expect_err(text);
        assert!(why.contains(words), "{text}: {why}");
    }
}

#[test]
fn toml_says_the_same() {
    let text = "[[rule]]\ntoken = \"dead*\"\nanswer = 410\nretry_after = 5\n\
        [[rule]]\nchance = 0.5\nsilence = true\n[[rule]]\nanswer = 200\nbody = \"two words\"\n";
    let mut toml = Script::default();
    toml.add_toml(Kind::Apns, text).expect("rules");
    let mut lines = script(&["token=dead* answer=410 retry-after=5", "chance=50% silence"]);
    lines.rules.push(toml.rules[2].clone());
    assert_eq!(toml.rules, lines.rules);
    assert_eq!(toml.rules[2].body.as_deref(), Some("two words"));
    for (text, words) in [
        ("", "no `[[rule]]`"),
        ("rules = 1", "`rules` is no key"),
        ("rule = [1]", "rule 1: it is no table"),
        ("[[rule]]\nanswer = [1]", "`answer` has to be"),
        ("[[rule]]\nsilence = false", "`silence` has to be"),
        ("[[rule]", "line 1"),
    ] {
        let why = Script::default()
            .add_toml(Kind::Apns, text)
            .expect_err(text);
        assert!(why.contains(words), "{text}: {why}");
    }
    let mut many = Script::default();
    let text = "[[rule]]\nsilence = true\n".repeat(RULES + 1);
    assert!(many.add_toml(Kind::Apns, &text).is_err());
}
