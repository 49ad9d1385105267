/**
 * One tab of a project works, the others watch. The tab that has worked longest stays the one until another takes over.
 *
 * @param {string} name of the channel: one for each project and rater
 * @param {() => void} onyield called when this tab has to let another work
 * @returns {() => void} takes over
 */
export function shareWork(name, onyield) {
  const channel = new BroadcastChannel(name);
  const mark = new Uint32Array(1);
  crypto.getRandomValues(mark);
  let since = [Date.now(), mark[0]];

  const wasFirst = ([time, tab]) => since[0] < time || (since[0] === time && since[1] < tab);

  channel.onmessage = ({ data }) => {
    if (data.says === "hello" && since && wasFirst(data.since)) channel.postMessage({ says: "here" });
    if (data.says === "take" || (data.says === "here" && since)) {
      if (since) onyield();
      since = null;
    }
  };
  channel.postMessage({ says: "hello", since });

  return () => {
    since = [Date.now(), mark[0]];
    channel.postMessage({ says: "take" });
  };
}
