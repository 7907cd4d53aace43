// Times and dates for people.

// Seconds as 1:05, or 2:01:05.
export function clock(seconds) {
  const minutes = Math.floor(seconds / 60), rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

// How long something lasts: 8.1 s, or from two minutes on 3:00:00.
export function lasting(seconds) {
  return seconds < 120 ? `${seconds.toFixed(1)} s` : clock(seconds);
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long" });

// When something was: today 14:05, yesterday 14:05, Monday 14:05, 3 May 14:05.
export function when(at, now = Date.now()) {
  const midnight = (time) => new Date(time).setHours(0, 0, 0, 0);
  const days = Math.round((midnight(now) - midnight(at)) / 86400000);
  const day = days === 0 ? "today" : days === 1 ? "yesterday" : days < 7 ? DAY.format(at) : DATE.format(at);
  return `${day} ${TIME.format(at)}`;
}
