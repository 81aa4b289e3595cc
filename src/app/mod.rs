//! What a message means, whatever transport carried it. Pure: an application is told what happened
//! and says what is to happen through the `Cx` it is handed.

pub mod apps;
