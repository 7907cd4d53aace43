// Two windows must not speak into one transcript.

// A function that lets go of it, or null where another window has it.
export function hold(session) {
  if (!navigator.locks) return Promise.resolve(() => {}); // pages without HTTPS have no microphone either
  return new Promise((resolve) => {
    navigator.locks.request(`moulin-${session.id}`, { ifAvailable: true }, (lock) => {
      if (!lock) { resolve(null); return undefined; }
      return new Promise((release) => resolve(release));
    });
  });
}
