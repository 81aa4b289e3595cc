//! Areas: known distances, every pole and meridian, and two other ways to the same answers.

use super::*;
use crate::base::dice::Dice;

fn at(latitude: f64, longitude: f64) -> Point {
    Point::new(latitude, longitude).expect("a place")
}

fn ring(corners: &[(f64, f64)]) -> Vec<Point> {
    corners
        .iter()
        .map(|(latitude, longitude)| at(*latitude, *longitude))
        .collect()
}

fn polygon(corners: &[(f64, f64)]) -> Area {
    Area::polygon(&[ring(corners)]).expect("a polygon")
}

/// Evenly spread over the globe.
fn anywhere(dice: &mut Dice) -> Point {
    let mut unit = || dice.below(1 << 53) as f64 / (1_u64 << 53) as f64;
    let latitude = (2.0 * unit() - 1.0).asin().to_degrees();
    at(latitude, 360.0 * unit() - 180.0)
}

/// Over the pole, if need be.
fn near(dice: &mut Dice, middle: Point, degrees: f64) -> Point {
    let mut off = || (dice.below(1 << 53) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0) * degrees;
    let (mut latitude, mut longitude) = (middle.latitude + off(), middle.longitude + off());
    if latitude.abs() > 90.0 {
        latitude = latitude.signum() * 180.0 - latitude;
        longitude += 180.0;
    }
    at(latitude, (longitude + 540.0).rem_euclid(360.0) - 180.0)
}

#[test]
fn distances_are_those_of_an_atlas() {
    let (berlin, paris, sydney) = (
        at(52.5200, 13.4050),
        at(48.8566, 2.3522),
        at(-33.8688, 151.2093),
    );
    let table = [
        (berlin, paris, 877_500.0),
        (paris, sydney, 16_960_000.0),
        (at(0.0, 179.0), at(0.0, -179.0), 222_390.0),
        (at(90.0, 10.0), at(90.0, -100.0), 0.0),
        (at(90.0, 0.0), at(-90.0, 0.0), 20_015_114.0),
    ];
    for (from, to, metres) in table {
        let found = from.distance(&to);
        assert!(
            (found - metres).abs() <= metres * 0.001 + 0.001,
            "{from:?} {to:?} {found}"
        );
        assert!((found - to.distance(&from)).abs() < 1e-6);
    }
    let step = at(52.52, 13.405).distance(&at(52.520009, 13.405));
    assert!((step - 1.0).abs() < 0.01, "metres are told apart: {step}");
}

#[test]
fn a_circle_ends_at_its_radius() {
    let berlin = at(52.5200, 13.4050);
    let paris = at(48.8566, 2.3522);
    let area = |radius| Area::circle(berlin, radius).expect("a circle");
    assert!(area(880_000.0).contains(&paris) && !area(875_000.0).contains(&paris));
    assert!(area(1.0).contains(&berlin));
    let all = Area::circle(berlin, 20_015_114.0).expect("the whole earth");
    assert!(all.contains(&at(-90.0, 0.0)) && all.contains(&paris));
}

#[test]
fn poles_and_the_180th_meridian_are_places_like_others() {
    let pole = Area::circle(at(89.0, 0.0), 200_000.0).expect("a circle");
    assert!(pole.contains(&at(90.0, 77.0)) && pole.contains(&at(89.5, 180.0)));
    assert!(!pole.contains(&at(88.0, 180.0)) && pole.contains(&at(88.0, 0.0)));
    let fiji = Area::circle(at(-17.7, 179.5), 150_000.0).expect("a circle");
    assert!(fiji.contains(&at(-17.7, -179.9)) && fiji.contains(&at(-17.7, 180.0)));
    assert!(!fiji.contains(&at(-17.7, -178.0)) && !fiji.contains(&at(-17.7, 0.0)));

    let around = polygon(&[(70.0, 0.0), (70.0, 90.0), (70.0, 180.0), (70.0, -90.0)]);
    assert!(around.contains(&at(90.0, 0.0)) && around.contains(&at(80.0, -135.0)));
    assert!(!around.contains(&at(69.0, 45.0)) && !around.contains(&at(-80.0, 45.0)));
    let south = polygon(&[(-60.0, 10.0), (-60.0, 130.0), (-60.0, -110.0)]);
    assert!(south.contains(&at(-90.0, 0.0)) && !south.contains(&at(90.0, 0.0)));
    let strait = polygon(&[(60.0, 170.0), (60.0, -170.0), (70.0, -170.0), (70.0, 170.0)]);
    assert!(strait.contains(&at(65.0, 180.0)) && strait.contains(&at(65.0, -171.0)));
    assert!(!strait.contains(&at(65.0, 169.0)) && !strait.contains(&at(65.0, 0.0)));
}

#[test]
fn edges_are_the_shortest_ways() {
    let wide = polygon(&[(40.0, -60.0), (40.0, 60.0), (10.0, 60.0), (10.0, -60.0)]);
    assert!(
        wide.contains(&at(55.0, 0.0)),
        "the way at 40 degrees leads far north"
    );
    assert!(!wide.contains(&at(61.0, 0.0)));
    assert!(!wide.contains(&at(12.0, 0.0)), "and so does that at 10");
    assert!(wide.boxes()[0].north > 59.0);
}

#[test]
fn rings_may_close_turn_either_way_and_have_holes() {
    let outer = ring(&[
        (0.0, 0.0),
        (0.0, 10.0),
        (10.0, 10.0),
        (10.0, 0.0),
        (0.0, 0.0),
    ]);
    let hole = ring(&[(4.0, 4.0), (4.0, 6.0), (6.0, 6.0), (6.0, 4.0)]);
    let open: Vec<Point> = outer[..4].to_vec();
    let turned: Vec<Point> = outer.iter().rev().copied().collect();
    for rings in [[outer, hole.clone()], [open, hole.clone()], [turned, hole]] {
        let area = Area::polygon(&rings).expect("a polygon");
        assert!(area.contains(&at(2.0, 2.0)) && area.contains(&at(9.0, 5.0)));
        assert!(!area.contains(&at(5.0, 5.0)) && !area.contains(&at(11.0, 5.0)));
    }
}

/// How often the ring goes around the point: the sum of the angles under which it sees each edge.
fn turns_around(corners: &[Point], point: &Point) -> i32 {
    let Direction([x, y, z]) = point.direction();
    let (north, east) = (
        Direction([-x * z, -y * z, x * x + y * y]),
        Direction([-y, x, 0.0]),
    );
    let bearing = |corner: &Point| {
        let to = corner.direction();
        to.dot(east).atan2(to.dot(north))
    };
    let bearings: Vec<f64> = corners.iter().map(bearing).collect();
    let nexts = bearings.iter().cycle().skip(1);
    let turns = bearings.iter().zip(nexts).map(|(from, to)| {
        let turn = (to - from) / std::f64::consts::TAU;
        turn - turn.round()
    });
    turns.sum::<f64>().round() as i32
}

#[test]
fn two_ways_to_ask_who_is_inside_agree() {
    let mut dice = Dice::new([3; 16]);
    let (mut inside, mut outside) = (0, 0);
    for _ in 0..300 {
        let middle = anywhere(&mut dice);
        let size = 1.0 + dice.below(40) as f64;
        let count = 3 + dice.below(8);
        let corners: Vec<Point> = (0..count).map(|_| near(&mut dice, middle, size)).collect();
        let Ok(area) = Area::polygon(std::slice::from_ref(&corners)) else {
            continue;
        };
        for _ in 0..30 {
            let point = near(&mut dice, middle, size);
            let is_odd = turns_around(&corners, &point) % 2 != 0;
            // From the other side of the globe the ring is seen too.
            let expected = is_odd && area.middle.dot(point.direction()) > 0.0;
            assert_eq!(area.contains(&point), expected, "{corners:?} {point:?}");
            inside += usize::from(expected);
            outside += usize::from(!expected);
        }
    }
    assert!(inside > 1000 && outside > 1000, "{inside} {outside}");
}

#[test]
fn whoever_is_inside_is_in_a_box() {
    let mut dice = Dice::new([5; 16]);
    let (mut inside, mut double) = (0, 0);
    for _ in 0..2000 {
        let middle = anywhere(&mut dice);
        let size = 0.01 * 1.01_f64.powi(dice.below(800) as i32);
        let corners: Vec<Point> = (0..4).map(|_| near(&mut dice, middle, size)).collect();
        let polygon = Area::polygon(&[corners]);
        let circle = Area::circle(middle, size * 111_195.0);
        for area in [circle, polygon].into_iter().flatten() {
            let boxes = area.boxes();
            assert!(matches!(boxes.len(), 1 | 2));
            double += usize::from(boxes.len() == 2);
            for _ in 0..20 {
                let point = near(&mut dice, middle, size);
                if area.contains(&point) {
                    inside += 1;
                    let found = boxes.iter().any(|it| it.contains(&point));
                    assert!(found, "{point:?} {boxes:?}");
                }
            }
        }
    }
    assert!(inside > 10_000 && double > 20, "{inside} {double}");
}

#[test]
fn a_box_is_no_larger_than_it_has_to_be() {
    let boxes = Area::circle(at(60.0, 10.0), 111_195.0)
        .expect("a circle")
        .boxes();
    let [only] = boxes.as_slice() else {
        panic!("{boxes:?}");
    };
    assert!((only.south - 59.0).abs() < 0.001 && (only.north - 61.0).abs() < 0.001);
    assert!(
        (only.east - 12.0).abs() < 0.002 && (only.west - 8.0).abs() < 0.002,
        "{only:?}"
    );
}

#[test]
fn what_is_no_area_is_refused_with_a_reason() {
    let circle = |rest: &str| Area::read(&format!(r#"{{"type":"Circle",{rest}}}"#));
    let good = r#""latitude":52.5,"longitude":13.4,"radius_metres":1000"#;
    assert!(circle(good).is_ok_and(|area| area.contains(&at(52.505, 13.4))));
    let square = r#"{"type":"Polygon","coordinates":[[[13,52],[14,52],[14,53],[13,53],[13,52]]]}"#;
    assert!(Area::read(square).is_ok_and(|area| area.contains(&at(52.5, 13.4))));
    let table = [
        (
            r#""latitude":91,"longitude":0,"radius_metres":1"#,
            "latitude",
        ),
        (
            r#""latitude":0,"longitude":-181,"radius_metres":1"#,
            "longitude",
        ),
        (r#""latitude":0,"longitude":0,"radius_metres":0"#, "radius"),
        (r#""latitude":0,"longitude":0,"radius_metres":-1"#, "radius"),
        (
            r#""latitude":0,"longitude":0,"radius_metres":3e7"#,
            "radius",
        ),
        (r#""latitude":0,"longitude":0"#, "radius_metres"),
        (r#""latitude":0,"longitude":0,"radius":1"#, "radius"),
    ];
    for (rest, word) in table {
        let why = circle(rest).expect_err(rest);
        assert!(why.contains(word), "{why}");
    }
    let polygon =
        |rings: &str| Area::read(&format!(r#"{{"type":"Polygon","coordinates":{rings}}}"#));
    let many = vec!["[0,0],[1,0],[1,1]"; 334].join(",");
    let table = [
        ("[]", "three different corners"),
        ("[[]]", "three different corners"),
        ("[[[0,0],[1,1],[0,0],[1,1]]]", "three different corners"),
        ("[[[0,0],[1,0],[1,1]],[[0,0]]]", "three different corners"),
        ("[[[0,0],[120,0],[-120,0]]]", "85 degrees"),
        ("[[[0,0],[180,0],[90,10]]]", "85 degrees"),
        ("[[[0,91],[1,0],[1,1]]]", "latitude"),
        ("[[[0],[1,0],[1,1]]]", "no area"),
        (&format!("[[{many}]]"), "1000 corners"),
    ];
    for (rings, word) in table {
        let why = polygon(rings).expect_err(rings);
        assert!(why.contains(word), "{rings}: {why}");
    }
    assert!(Area::read(r#"{"type":"Blob"}"#).is_err());
    for odd in [f64::NAN, f64::INFINITY] {
        assert!(Point::new(odd, 0.0).is_err() && Point::new(0.0, odd).is_err());
        assert!(Area::circle(at(0.0, 0.0), odd).is_err());
    }
}
