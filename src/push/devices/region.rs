//! In which part of the world a place is, roughly: enough to see that devices come from where they did
//! not come from before, and no more. Borders are the sides of boxes, so that near them a place may
//! count as its neighbour. Knows no country.

use crate::push::devices::geo::Point;

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    Africa,
    Antarctica,
    Asia,
    Europe,
    NorthAmerica,
    Oceania,
    SouthAmerica,
    /// Oceans and small islands.
    Elsewhere,
}

impl Region {
    pub const ALL: [Region; 8] = {
        use Region::*;
        [
            Africa,
            Antarctica,
            Asia,
            Europe,
            NorthAmerica,
            Oceania,
            SouthAmerica,
            Elsewhere,
        ]
    };

    pub fn of(place: &Point) -> Region {
        let (latitude, longitude) = (place.latitude(), place.longitude());
        let holds = |(_, latitudes, longitudes): &&Box| {
            (latitudes.0..latitudes.1).contains(&latitude)
                && (longitudes.0..longitudes.1).contains(&longitude)
        };
        let found = BOXES.iter().find(holds);
        found.map_or(Region::Elsewhere, |(region, ..)| *region)
    }
}

/// From the south to the north, and from the west to the east, in degrees.
type Box = (Region, (f64, f64), (f64, f64));

/// The first that holds a place is meant.
const BOXES: &[Box] = {
    use Region::*;
    &[
        (Antarctica, (-91.0, -60.0), (-180.0, 180.0)),
        // The coast from Tangier to Tunis, Libya and Egypt; what lies north of it is Europe.
        (Africa, (27.0, 37.4), (-2.0, 11.7)),
        (Africa, (27.0, 35.95), (-14.0, -2.0)),
        (Africa, (18.0, 33.3), (-18.0, 34.2)),
        (Africa, (17.0, 24.0), (34.2, 37.5)),
        (Africa, (12.0, 18.0), (-26.0, 42.0)),
        (Africa, (0.0, 12.0), (-18.0, 52.0)),
        (Africa, (-36.0, 0.0), (5.0, 60.0)),
        // Spain to Greece and Iceland to the Urals, without what is Turkey's and Kazakhstan's.
        (Europe, (34.5, 41.3), (-10.0, 26.3)),
        (Europe, (40.85, 72.0), (-12.0, 29.3)),
        (Europe, (62.5, 67.5), (-25.0, -12.0)),
        (Europe, (43.5, 82.0), (10.0, 46.5)),
        (Europe, (51.0, 82.0), (46.5, 60.0)),
        (NorthAmerica, (59.0, 84.0), (-75.0, -11.0)),
        (Oceania, (-60.0, 23.0), (-180.0, -140.0)),
        (Oceania, (-60.0, -10.0), (110.0, 180.0)),
        (Oceania, (-10.0, 0.0), (141.0, 180.0)),
        (Oceania, (0.0, 20.0), (130.0, 180.0)),
        (Asia, (-11.0, 82.0), (26.3, 180.0)),
        (Asia, (60.0, 75.0), (-180.0, -169.0)),
        (SouthAmerica, (-60.0, 7.2), (-95.0, -30.0)),
        (SouthAmerica, (7.2, 13.0), (-77.3, -50.0)),
        (NorthAmerica, (7.2, 84.0), (-170.0, -50.0)),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cities_are_on_their_continent() {
        use Region::*;
        let table = [
            (
                Africa,
                "Algiers 36.77 3.06; Tangier 35.77 -5.80; Tunis 36.81 10.18; Tripoli 32.89 13.19; \
                      Cairo 30.04 31.24; Khartoum 15.50 32.56; Dakar 14.72 -17.47; Lagos 6.52 3.38; \
                      Addis_Ababa 9.03 38.74; Nairobi -1.29 36.82; Cape_Town -33.92 18.42; \
                      Antananarivo -18.88 47.51",
            ),
            (Antarctica, "McMurdo -77.85 166.67; the_pole -90 0"),
            (
                Asia,
                "Ankara 39.93 32.86; Tel_Aviv 32.09 34.78; Riyadh 24.71 46.68; Jeddah 21.49 39.19; \
                    Aden 12.79 45.02; Tbilisi 41.72 44.79; Almaty 43.24 76.89; Delhi 28.61 77.21; \
                    Novosibirsk 55.03 82.92; Beijing 39.90 116.41; Tokyo 35.68 139.69; \
                    Manila 14.60 120.98; Jakarta -6.21 106.85; Provideniya 64.42 -173.23",
            ),
            (
                Europe,
                "Lisbon 38.72 -9.14; Gibraltar 36.14 -5.35; Palermo 38.12 13.36; Athens 37.98 23.73; \
                      Heraklion 35.34 25.14; London 51.51 -0.13; Dublin 53.35 -6.26; \
                      Reykjavik 64.15 -21.94; Vienna 48.21 16.37; Istanbul 41.01 28.98; \
                      Kyiv 50.45 30.52; Moscow 55.76 37.62; Perm 58.01 56.25",
            ),
            (
                NorthAmerica,
                "Nuuk 64.18 -51.74; Anchorage 61.22 -149.90; Toronto 43.65 -79.38; \
                            San_Francisco 37.77 -122.42; Miami 25.76 -80.19; Mexico_City 19.43 -99.13; \
                            Panama 8.98 -79.52; San_Juan 18.47 -66.11",
            ),
            (
                Oceania,
                "Perth -31.95 115.86; Darwin -12.46 130.84; Sydney -33.87 151.21; \
                       Auckland -36.85 174.76; Port_Moresby -9.44 147.18; Guam 13.44 144.79; \
                       Honolulu 21.31 -157.86; Suva -18.14 178.44",
            ),
            (
                SouthAmerica,
                "Bogota 4.71 -74.07; Cartagena 10.39 -75.48; Caracas 10.48 -66.90; \
                            Quito -0.18 -78.47; Lima -12.05 -77.04; Sao_Paulo -23.55 -46.63; \
                            Ushuaia -54.80 -68.30",
            ),
            (Elsewhere, "the_Atlantic 30 -40; the_Indian_Ocean -40 80"),
        ];
        for (region, cities) in table {
            for city in cities.split(';') {
                let mut words = city.split_whitespace();
                let name = words.next().expect("a name");
                let mut degrees = words.map(|it| it.parse().expect("degrees"));
                let (latitude, longitude) = (degrees.next(), degrees.next());
                let place = latitude.zip(longitude).expect("two numbers");
                let place = Point::new(place.0, place.1).expect("a place");
                assert_eq!(Region::of(&place), region, "{name}");
            }
        }
    }
}
