-- A call for one user costs a row in each index; those that another can do the work of are gone.

-- Whoever looks for the open deliveries of a user or a notification finds them by this.
DROP INDEX delivery_by_user;
DROP INDEX delivery_open;
CREATE INDEX delivery_open ON deliveries (notification, user_id) WHERE state IN ('held', 'queued');
-- All deliveries of a notification, addresses too; rows without a device are all different.
DROP INDEX delivery_once;
CREATE UNIQUE INDEX delivery_once ON deliveries (notification, device);

-- What names no end is kept for 28 days.
DROP INDEX notification_open;
DROP INDEX notification_by_expiry;
CREATE INDEX notification_open ON notifications (coalesce(expires_at, send_at + 2419200000), id)
    WHERE state = 'open';
