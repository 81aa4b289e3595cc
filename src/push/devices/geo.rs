//! Places on the map and areas that hold some of them: circles and polygons. The earth is a sphere of
//! the mean radius, which is wrong by half a percent at most. The edges of a polygon are the shortest
//! ways between its corners, as for PostGIS' geography; over hundreds of kilometres these are not the
//! straight lines of a flat map. Neither poles nor the 180th meridian are special.
//!
//! Invariants: an area of which a point is part has it in one of its boxes too. A polygon fits into
//! half the globe, so that it is clear which side of it is inside.

use serde::Deserialize;

/// Of a sphere with the earth's surface, in metres (IUGG).
const EARTH_RADIUS: f64 = 6_371_008.8;
/// Of all rings of one polygon.
const CORNERS_MAX: usize = 1_000;
/// How far the corners of a polygon may be from its middle, in degrees.
const REACH_MAX: f64 = 85.0;
/// Boxes are larger by this many degrees (a tenth of a millimetre), so that rounding loses nobody.
const MARGIN: f64 = 1e-9;

/// A place, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// -90 to 90.
    latitude: f64,
    /// -180 to less than 180.
    longitude: f64,
}

impl Point {
    /// 180 degrees east become 180 west, which are the same.
    pub fn new(latitude: f64, longitude: f64) -> Result<Point, &'static str> {
        if !(-90.0..=90.0).contains(&latitude) {
            return Err("a latitude is between -90 and 90 degrees");
        }
        if !(-180.0..=180.0).contains(&longitude) {
            return Err("a longitude is between -180 and 180 degrees");
        }
        let longitude = if longitude == 180.0 {
            -180.0
        } else {
            longitude
        };
        Ok(Point {
            latitude,
            longitude,
        })
    }

    pub fn latitude(&self) -> f64 {
        self.latitude
    }

    pub fn longitude(&self) -> f64 {
        self.longitude
    }

    /// The way along the surface, in metres.
    pub fn distance(&self, other: &Point) -> f64 {
        self.direction().angle(other.direction()) * EARTH_RADIUS
    }

    fn direction(&self) -> Direction {
        let (latitude, longitude) = (self.latitude.to_radians(), self.longitude.to_radians());
        let level = latitude.cos();
        Direction([
            level * longitude.cos(),
            level * longitude.sin(),
            latitude.sin(),
        ])
    }
}

/// A place as the unit vector from the middle of the earth to it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Direction([f64; 3]);

impl Direction {
    fn of([x, y, z]: [f64; 3]) -> Option<Direction> {
        let length = (x * x + y * y + z * z).sqrt();
        (length > 1e-6).then(|| Direction([x / length, y / length, z / length]))
    }

    fn dot(self, other: Direction) -> f64 {
        let [a, b, c] = self.0;
        let [x, y, z] = other.0;
        a * x + b * y + c * z
    }

    fn cross(self, other: Direction) -> [f64; 3] {
        let [a, b, c] = self.0;
        let [x, y, z] = other.0;
        [b * z - c * y, c * x - a * z, a * y - b * x]
    }

    /// Between 0 and pi; exact for near places too.
    fn angle(self, other: Direction) -> f64 {
        let [x, y, z] = self.cross(other);
        (x * x + y * y + z * z).sqrt().atan2(self.dot(other))
    }

    fn point(self) -> Point {
        let [x, y, z] = self.0;
        Point {
            latitude: z.atan2((x * x + y * y).sqrt()).to_degrees(),
            longitude: y.atan2(x).to_degrees(),
        }
    }
}

/// See the file's head.
#[derive(Clone, Debug, PartialEq)]
pub struct Area {
    /// Middle and radius, the latter as an angle: the area itself, or what it is within.
    middle: Direction,
    angle: f64,
    polygon: Option<Polygon>,
}

/// Corners on the plane that touches the earth in the area's middle, seen from the middle of the
/// earth: there the shortest ways are straight lines (gnomonic projection).
#[derive(Clone, Debug, PartialEq)]
struct Polygon {
    across: Direction,
    up: Direction,
    edges: Vec<[(f64, f64); 2]>,
}

/// Between two latitudes and two longitudes, all of them included, in degrees. Never crosses the
/// 180th meridian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub south: f64,
    pub north: f64,
    pub west: f64,
    pub east: f64,
}

/// As JSON; a polygon is one of GeoJSON (RFC 7946 section 3.1.6).
#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum RawArea {
    Circle {
        latitude: f64,
        longitude: f64,
        radius_metres: f64,
    },
    Polygon {
        /// Rings of longitude and latitude, the holes behind the outer one.
        coordinates: Vec<Vec<(f64, f64)>>,
    },
}

impl Area {
    /// Reads `{"type":"Circle","latitude":…,"longitude":…,"radius_metres":…}` or
    /// `{"type":"Polygon","coordinates":[[[longitude, latitude], …], …]}`. What is wrong is told in a
    /// sentence for whoever wrote it.
    pub fn read(json: &str) -> Result<Area, String> {
        match serde_json::from_str(json).map_err(|error| format!("this is no area: {error}"))? {
            RawArea::Circle {
                latitude,
                longitude,
                radius_metres,
            } => Area::circle(Point::new(latitude, longitude)?, radius_metres),
            RawArea::Polygon { coordinates } => {
                let point = |&(longitude, latitude): &(f64, f64)| Point::new(latitude, longitude);
                let rings = coordinates
                    .iter()
                    .map(|ring| ring.iter().map(point).collect());
                let rings: Vec<Vec<Point>> = rings.collect::<Result<_, _>>()?;
                return Area::polygon(&rings).map_err(str::to_string);
            }
        }
        .map_err(str::to_string)
    }

    /// Everything that is no farther from `middle`, in metres along the surface.
    pub fn circle(middle: Point, radius: f64) -> Result<Area, &'static str> {
        let angle = radius / EARTH_RADIUS;
        if !(angle > 0.0 && angle <= std::f64::consts::PI) {
            return Err("a radius is more than 0 metres and at most half around the earth");
        }
        Ok(Area {
            middle: middle.direction(),
            angle,
            polygon: None,
        })
    }

    /// What is within an odd number of the rings: so those behind the first one are holes in it. A
    /// ring may, but need not, end with its first corner; in which sense it turns does not matter.
    pub fn polygon(rings: &[Vec<Point>]) -> Result<Area, &'static str> {
        if rings.iter().map(Vec::len).sum::<usize>() > CORNERS_MAX {
            return Err("a polygon has 1000 corners at most");
        }
        let has_inside = |ring: &Vec<Point>| {
            let mut others = ring.iter().filter(|corner| **corner != ring[0]);
            others
                .next()
                .is_some_and(|one| others.any(|two| two != one))
        };
        if rings.is_empty() || !rings.iter().all(has_inside) {
            return Err("each ring of a polygon has three different corners at least");
        }
        let rings: Vec<Vec<Direction>> = rings
            .iter()
            .map(|ring| ring.iter().map(Point::direction).collect())
            .collect();
        let too_large = "a polygon does not reach farther than 85 degrees from its middle";
        let middle = middle_of(&rings[0]).ok_or(too_large)?;
        let corners = rings.iter().flatten();
        let angle = corners.fold(0.0, |most: f64, corner| most.max(middle.angle(*corner)));
        if angle > REACH_MAX.to_radians() {
            return Err(too_large);
        }
        Ok(Area {
            middle,
            angle,
            polygon: Some(Polygon::around(middle, &rings)),
        })
    }

    /// Who stands exactly on the edge of a polygon may be in or out.
    pub fn contains(&self, point: &Point) -> bool {
        let direction = point.direction();
        self.middle.angle(direction) <= self.angle
            && self.polygon.as_ref().is_none_or(|polygon| {
                let place = polygon.project(self.middle, direction);
                polygon.contains(place)
            })
    }

    /// One box, or two if the area crosses the 180th meridian, that hold all of it, and more.
    pub fn boxes(&self) -> Vec<Bounds> {
        let (middle, angle) = (self.middle.point(), self.angle.to_degrees() + MARGIN);
        let (south, north) = (middle.latitude - angle, middle.latitude + angle);
        let all_around = Bounds {
            south: south.max(-90.0),
            north: north.min(90.0),
            west: -180.0,
            east: 180.0,
        };
        if south <= -90.0 || north >= 90.0 {
            return vec![all_around];
        }
        // The meridians that touch the circle do so nearer to the pole than its middle.
        let width = angle.to_radians().sin() / middle.latitude.to_radians().cos();
        let width = width.min(1.0).asin().to_degrees() + MARGIN;
        let (west, east) = (middle.longitude - width, middle.longitude + width);
        let one = |west: f64, east: f64| Bounds {
            west,
            east,
            ..all_around
        };
        match (west < -180.0, east >= 180.0) {
            (false, false) => vec![one(west, east)],
            (true, false) => vec![one(west + 360.0, 180.0), one(-180.0, east)],
            (false, true) => vec![one(west, 180.0), one(-180.0, east - 360.0)],
            (true, true) => vec![all_around],
        }
    }
}

impl Bounds {
    pub fn contains(&self, point: &Point) -> bool {
        (self.south..=self.north).contains(&point.latitude)
            && (self.west..=self.east).contains(&point.longitude)
    }
}

/// Half way between the outermost corners, in space: where many corners are close together, as along
/// a coast, they do not pull it towards them.
fn middle_of(corners: &[Direction]) -> Option<Direction> {
    let half_way = |axis: usize| {
        let values = corners.iter().map(|corner| corner.0[axis]);
        let ends = values.fold((1.0_f64, -1.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        (ends.0 + ends.1) / 2.0
    };
    Direction::of([half_way(0), half_way(1), half_way(2)])
}

impl Polygon {
    fn around(middle: Direction, rings: &[Vec<Direction>]) -> Polygon {
        // Any axis will do that does not point the same way.
        let axis = if middle.0[2].abs() < 0.9 {
            [0.0, 0.0, 1.0]
        } else {
            [1.0, 0.0, 0.0]
        };
        let across = Direction::of(middle.cross(Direction(axis))).unwrap_or(Direction(axis));
        let up = Direction(middle.cross(across));
        let mut polygon = Polygon {
            across,
            up,
            edges: Vec::new(),
        };
        for ring in rings {
            let corners = ring.iter().map(|corner| polygon.project(middle, *corner));
            let corners: Vec<(f64, f64)> = corners.collect();
            let nexts = corners.iter().cycle().skip(1);
            let edges = corners.iter().zip(nexts).map(|(from, to)| [*from, *to]);
            polygon.edges.extend(edges);
        }
        polygon
    }

    /// Only for what is less than a quarter around the earth from the middle.
    fn project(&self, middle: Direction, to: Direction) -> (f64, f64) {
        let depth = middle.dot(to);
        (self.across.dot(to) / depth, self.up.dot(to) / depth)
    }

    /// Whether a line from there to the side crosses an odd number of edges.
    fn contains(&self, (x, y): (f64, f64)) -> bool {
        let crossed = self.edges.iter().filter(|[from, to]| {
            let spans = (from.1 > y) != (to.1 > y);
            spans && x < from.0 + (to.0 - from.0) * (y - from.1) / (to.1 - from.1)
        });
        crossed.count() % 2 == 1
    }
}

#[cfg(test)]
#[path = "geo_tests.rs"]
mod tests;
