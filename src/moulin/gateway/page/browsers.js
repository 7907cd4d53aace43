// Where each browser lets a visitor allow the microphone.

export function allowHint(userAgent = navigator.userAgent) {
  const phone = /Android|iPhone|iPad|Mobile/.test(userAgent);
  const [, where] = WAYS.find(([pattern]) => pattern.test(userAgent)) ?? [];
  return `${where ?? (phone ? "Allow it in the browser's settings for this site" : "Allow it for this page at the address bar")}, then press Speak again.`;
}

const WAYS = [
  [/(iPhone|iPad).*(CriOS|FxiOS|EdgiOS)/, "In the phone's Settings, open this browser's entry and switch Microphone on"],
  [/iPhone|iPad/, "Tap the button left of the address, then Website Settings, Microphone, Allow"],
  [/Android.*Firefox/, "Tap the lock left of the address and clear the blocked microphone"],
  [/Android.*SamsungBrowser/, "Open the menu, Settings, Sites and downloads, Site permissions, and allow the microphone"],
  [/Android/, "Tap the icon left of the address, then Permissions, and switch Microphone on"],
  [/Firefox/, "Click the crossed-out microphone left of the address and remove the block"],
  [/Edg\//, "Click the lock left of the address, then Permissions for this site, Microphone, Allow"],
  [/Chrome/, "Click the icon left of the address and switch Microphone on"],
  [/Safari/, "Choose Safari, Settings for this website, and set Microphone to Allow"],
];
