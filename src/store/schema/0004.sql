-- What webhooks are to be told of deliveries and devices, noted in the transaction in which it became
-- so. Times are milliseconds since 1970.
CREATE TABLE news (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    app_id TEXT NOT NULL,
    kind TEXT NOT NULL
        CHECK (kind IN ('notification_delivered', 'notification_failed', 'device_removed')),
    notification TEXT,
    -- As the app knows it.
    device_id TEXT,
    user_id TEXT,
    reason TEXT,
    -- Until when a courier has it in hand; which one.
    claimed_until INTEGER NOT NULL DEFAULT 0,
    claimed_by TEXT
) STRICT;

-- Of which app somebody wants to be told what; nothing else is noted.
CREATE TABLE news_wanted (
    app_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (app_id, kind)
) STRICT, WITHOUT ROWID;

-- Attempts after which a delivery had to wait for another one; the newest of each.
CREATE TABLE attempts (
    delivery INTEGER NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    -- From 1.
    number INTEGER NOT NULL,
    -- When it was over.
    at INTEGER NOT NULL,
    reason TEXT,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;
