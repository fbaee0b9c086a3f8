// What each fault does, for people. The names are the control API's.

export const FAULTS = {
  lost_answer: { group: "sends", title: "Lost answer", text: "The message arrives, then the connection breaks before the bot is told." },
  no_answer: { group: "sends", title: "No answer", text: "The message arrives, then nothing for a minute." },
  false_error: { group: "sends", title: "False error", text: "The message arrives, and Graph reports error 1/1357046 all the same." },
  reset: { group: "sends", title: "Broken connection", text: "The connection breaks before anything is done." },
  slow: { group: "sends", title: "Slow", text: "Everything works, five seconds late.", more: { seconds: 5 } },
  server_error: { group: "sends", title: "Server error", text: "500 with a Graph error, code 2: temporary." },
  bare_error: { group: "sends", title: "Bare error", text: "502 without a body." },
  html: { group: "sends", title: "A web page", text: "503 with HTML where JSON is expected." },
  throttle: { group: "sends", title: "Too many calls", text: "Error 613: the Page must pause for a minute (RATE)." },
  access_token: { group: "sends", title: "Bad access token", text: "Error 190: the Page has to be connected anew." },
  policy_block: { group: "sends", title: "Blocked for policy", text: "Error 368: the Page is restricted." },
  error: { group: "sends", title: "Any other error", text: "An error code of your choice.", asks: "code" },
  duplicate_webhook: { group: "webhooks", title: "Twice", text: "The same webhook is sent twice." },
  reorder_webhook: { group: "webhooks", title: "Out of order", text: "A webhook is held back until the next one has gone out." },
  delay_echo: { group: "webhooks", title: "Late echo", text: "The echo of a message comes ten seconds late.", more: { seconds: 10 } },
  lose_echo: { group: "webhooks", title: "Lost echo", text: "The echo of a message never comes." },
};

export const FAULT_GROUPS = [
  ["sends", "Calls of the bot"],
  ["webhooks", "Webhooks to the bot"],
];
