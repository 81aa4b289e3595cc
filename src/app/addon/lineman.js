/*
 * Lineman's add-on for pusher-js: what a client missed while it was away comes when it is back, and
 * notifications are acknowledged.
 *
 *     lineman(pusher);
 *
 * Events of channels that keep history carry a position. The add-on remembers the last one of each
 * channel, names it when pusher-js subscribes again after a reconnect, and lets nothing through
 * twice. Bind to a channel:
 *
 *     lineman:recovered  {missed}         everything that was missed follows, so many events
 *     lineman:gap        {epoch, offset}  something may be missing: fetch what you show anew
 *
 * With {storage: sessionStorage} positions outlive a reload of the page.
 *
 * A signed-in user tells the server that a notification was seen, so that no push follows:
 *
 *     pusher.user.bind('lineman:notification', function (data) { show(data); data.acknowledge(); });
 *
 * With {acknowledge: true} every notification counts as seen when it comes. An acknowledgement that
 * could not be sent, because the connection was just lost, is sent when it is back.
 *
 * Without history, or on another server, the add-on changes nothing. MIT or Apache-2.0.
 */
var lineman = (function () {
  'use strict';

  var SUCCEEDED = 'pusher_internal:subscription_succeeded';

  function lineman(pusher, options) {
    if (pusher.lineman) return pusher;
    pusher.lineman = true;

    var positions = memory(options && options.storage, 'lineman:' + pusher.key + ':');
    var asked = {}; // channels whose subscription names a position
    var owed = {}; // by channel: how many missed events are still to come, and where that leads

    /** Takes note of a message. Returns false for an event that was here already. */
    function note(message) {
      var channel = message.channel;
      if (typeof message.offset !== 'number') return true;
      if (message.event === SUCCEEDED) return succeeded(message);
      var last = positions.get(channel);
      if (last && last.epoch === message.epoch && message.offset <= last.offset) return false;
      if (last && last.epoch !== message.epoch) tell('lineman:gap', message);
      advance(channel, message);
      return true;
    }

    function succeeded(message) {
      var channel = message.channel;
      delete owed[channel];
      if (!message.recovered) return advance(channel, message);
      // Until the last of them is here the old position counts: the connection may break again.
      if (message.missed > 0) owed[channel] = { left: message.missed, then: message };
      else advance(channel, message);
      return true;
    }

    /** The position with the name of this connection, whose own events it does not receive. */
    function advance(channel, message) {
      var recovery = owed[channel];
      if (recovery) {
        recovery.left -= 1;
        if (recovery.left > 0) {
          var before = positions.get(channel);
          positions.set(channel, position(message, before && before.socket_id));
          return true;
        }
        delete owed[channel];
        message = recovery.then;
      }
      positions.set(channel, position(message, pusher.connection.socket_id));
      return true;
    }

    function position(message, socketId) {
      return { epoch: message.epoch, offset: message.offset, socket_id: socketId || undefined };
    }

    function tell(event, message) {
      var channel = pusher.channel(message.channel);
      var data = event === 'lineman:recovered'
        ? { missed: message.missed }
        : { epoch: message.epoch, offset: message.offset };
      if (channel) channel.emit(event, data);
    }

    /** What came of naming a position, once the channel has heard of its success. */
    function report(message) {
      var channel = message.channel;
      if (message.event !== SUCCEEDED || !asked[channel]) return;
      delete asked[channel];
      tell(message.recovered ? 'lineman:recovered' : 'lineman:gap', message);
    }

    /** pusher-js passes on only the members it knows, so messages are read where they come in. */
    function watch() {
      var transport = pusher.connection.connection && pusher.connection.connection.transport;
      if (!transport || transport.lineman) return;
      transport.lineman = true;
      var emit = transport.emit;
      transport.emit = function (name, event) {
        var message = name === 'message' ? read(event) : null;
        if (message && !note(message)) return transport;
        var result = emit.apply(transport, arguments);
        if (message) report(message);
        return result;
      };
    }

    var sendEvent = pusher.send_event;
    pusher.send_event = function (name, data, channel) {
      var last = name === 'pusher:subscribe' && positions.get(data.channel);
      if (last) {
        asked[data.channel] = true;
        data = Object.assign({}, data, { recover: last });
      }
      return sendEvent.call(pusher, name, data, channel);
    };

    var unsubscribe = pusher.unsubscribe;
    pusher.unsubscribe = function (name) {
      positions.remove(name);
      delete owed[name];
      return unsubscribe.call(pusher, name);
    };

    if (pusher.user) acknowledging(pusher, options && options.acknowledge);
    pusher.connection.bind('connected', watch);
    watch();
    return pusher;
  }

  /** Lets a user's notifications be acknowledged, or acknowledges each as it comes. */
  function acknowledging(pusher, always) {
    var unsent = []; // ids, the oldest first

    function acknowledge(id) {
      if (!pusher.send_event('lineman:ack', { id: id })) {
        unsent.push(id);
        if (unsent.length > 100) unsent.shift();
      }
    }

    var emit = pusher.user.emit;
    pusher.user.emit = function (name, data) {
      var id = data && data.notification_id;
      if (typeof id === 'string') {
        data.acknowledge = function () { acknowledge(id); };
        if (always) acknowledge(id);
      }
      return emit.apply(pusher.user, arguments);
    };
    pusher.bind_global(function (name) {
      // Only a user who is signed in again can acknowledge.
      if (name === 'pusher:signin_success') unsent.splice(0).forEach(acknowledge);
    });
  }

  /** A message of a channel with history; null for any other. */
  function read(event) {
    if (!event || typeof event.data !== 'string' || event.data.indexOf('"epoch"') < 0) return null;
    try {
      var message = JSON.parse(event.data);
      return message && typeof message.channel === 'string' ? message : null;
    } catch (error) {
      return null; // pusher-js reports it
    }
  }

  /** The positions, also kept in `storage` as far as it lets us. */
  function memory(storage, prefix) {
    var known = {};
    return {
      get: function (channel) {
        if (storage && !known[channel]) {
          try {
            known[channel] = JSON.parse(storage.getItem(prefix + channel));
          } catch (error) { /* nothing of ours */ }
        }
        return known[channel] || null;
      },
      set: function (channel, position) {
        known[channel] = position;
        try {
          if (storage) storage.setItem(prefix + channel, JSON.stringify(position));
        } catch (error) { /* full, or forbidden: it is known until the page is left */ }
      },
      remove: function (channel) {
        delete known[channel];
        try {
          if (storage) storage.removeItem(prefix + channel);
        } catch (error) { /* as above */ }
      },
    };
  }

  return lineman;
})();
if (typeof module === 'object' && module.exports) module.exports = lineman;
