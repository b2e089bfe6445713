/** Keeps the page, the runtime and the styles for a visit without a connection. */

/** Store what the page needs. Resolves to whether the next visit can be offline. */
export async function keepForOffline(files) {
  if (!navigator.serviceWorker) return false;
  try {
    await navigator.serviceWorker.register(new URL("service-worker.js", document.baseURI));
    const { active } = await navigator.serviceWorker.ready;
    const channel = new MessageChannel();
    const stored = new Promise((resolve) => (channel.port1.onmessage = ({ data }) => resolve(data === true)));
    active.postMessage(files, [channel.port2]);
    return await stored;
  } catch {
    return false;
  }
}
