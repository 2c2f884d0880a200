// What somebody writes with the client: the address and the cookie are its arguments, and it prints
// what it has found. The compiler is strict, so that the types of the document are tried, too.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };
const [, , baseUrl, cookie] = process.argv as [string, string, string, string];
const client = createClient<paths>({ baseUrl, headers: { cookie } });
const stranger = createClient<paths>({ baseUrl });

const listed = await client.GET("/sessions/", { params: { query: { ended: true } } });
if (listed.data === undefined) throw new Error(listed.error.toString());
const sessions: components["schemas"]["SessionEntry"][] = listed.data.sessions;
const other: string = sessions.filter((one) => !one.current)[0]!.sid;

// @ts-expect-error there is no such operation
void (() => client.PUT("/sessions/"));
// @ts-expect-error a session has no secret
void sessions[0]!.secret;

const ended = await client.DELETE("/sessions/{sid}", { params: { path: { sid: other } } });
const again = await client.POST("/sessions/end-others");
const count: number | undefined = again.data?.ended;
const left = await client.POST("/sessions/logout");
const message: string | undefined = left.data?.message;
const refused = await stranger.GET("/sessions/");
const why = refused.response.status === 401 ? refused.error : undefined;

console.log(
  JSON.stringify({
    devices: sessions.map((one) => one.device),
    ended: ended.response.status,
    count,
    message,
    why,
  }),
);
