// What each setting means, for people. The names are the control API's.

export const GROUPS = [
  ["Not documented", {
    notify_me_opens_window: ["Notify Me opens the window", "It is not on Meta’s list of actions that do, and nowhere excluded (FAQ)."],
    used_token_error: ["Error for a used token", "Meta documents none. 100 is what the sister API answers; the subcode is made up."],
    expired_token_error: ["Error for an expired token", "As above."],
    invalid_token_error: ["Error for an unknown token", "As above."],
    outside_window_error: ["Error outside the window", "Two subcodes are known: 10/2018278 and 10/2018065 (ERR)."],
    blocked_person_error: ["Error for a person who blocked the Page", "551 or 200/1545041 (ERR)."],
    messaging_type_with_token: ["A token send may carry messaging_type", "Meta’s sample has none (OTN)."],
    token_answer_has_recipient_id: ["The answer to a token send has recipient_id", "It may lack it."],
    optins_in_standby: ["Opt-ins go to standby", "Only while another app controls the thread."],
    token_send_needs_thread: ["A token send needs the thread", "Otherwise it is refused with 2018300 while another app controls it."],
    request_payload_limit: ["Longest payload of a permission request", "1000 is the limit of postback payloads (SEND)."],
  }],
  ["What the Page may do", {
    otn_allowed: ["One-Time Notification", "Is given to each Page, and can be taken away (OTN)."],
    human_agent_allowed: ["Tag HUMAN_AGENT", "Needs a permission of its own (POLICY)."],
    require_appsecret_proof: ["Demand appsecret_proof", "An option of the app’s dashboard."],
    calls_per_second: ["Calls in a second, real time", "For one Page; 0 is no limit (RATE)."],
    media_calls_per_second: ["Audio and video in a second", "For one Page; 0 is no limit (RATE)."],
    ad_window_days: ["Days that an ad opens the window", "Up to 7 (POLICY)."],
  }],
  ["How webhooks come", {
    echoes: ["Echoes", "What the Page sends comes back to the bot (ECHO)."],
    deliveries: ["Delivery receipts", "A webhook for each message that arrives."],
    batch_size: ["Events in one webhook", "More than 1: events wait for company."],
    batch_wait: ["Seconds to wait for company", ""],
    webhook_timeout: ["Seconds until a webhook times out", "20 (HOOKS)."],
    retry_delays: ["Seconds between attempts", "Meta’s own are unknown."],
    unsubscribe_after: ["Seconds of failure until the app is unsubscribed", "An hour (HOOKS)."],
  }],
];
