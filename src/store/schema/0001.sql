-- Who endpoints were told is there. member: the id of a user, or NULL for the channel itself.
CREATE TABLE told (
    channel TEXT NOT NULL,
    member TEXT,
    UNIQUE (channel, member)
);
CREATE UNIQUE INDEX told_channels ON told (channel) WHERE member IS NULL;

-- Requests that were not delivered yet, as they will be sent.
CREATE TABLE letters (
    id INTEGER PRIMARY KEY,
    app_id TEXT NOT NULL,
    url TEXT NOT NULL,
    lane INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    body TEXT NOT NULL
);

-- Up to which report the last switchboard's are stored; one row.
CREATE TABLE heard (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    life INTEGER NOT NULL,
    sequence INTEGER NOT NULL
);
