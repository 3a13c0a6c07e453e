// A real OpenID Connect issuer, oidc-provider, over https: prints `ready` and serves the client credentials grant.
// ISSUER_URL, TLS_CERTIFICATE, TLS_KEY and NODE_MODULES say where; the clients `writer` and `reader` have the secret
// `secret`, and get access tokens as JWT for the audience of SDKs, with the roles in CLIENT_ROLES.
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const { Provider } = await import(pathToFileURL(process.env.NODE_MODULES + '/oidc-provider/lib/index.js'));
const url = new URL(process.env.ISSUER_URL);
const roles = JSON.parse(process.env.CLIENT_ROLES);

const provider = new Provider(process.env.ISSUER_URL, {
  clients: Object.keys(roles).map((id) => ({
    client_id: id,
    client_secret: 'secret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  })),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'https://iothubs.azure.net',
      getResourceServerInfo: () => ({
        scope: '',
        audience: 'https://iothubs.azure.net',
        accessTokenFormat: 'jwt',
        accessTokenTTL: 3600,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  extraTokenClaims: (_context, token) => ({ sub: token.clientId, roles: roles[token.clientId] }),
});

createServer(
  { cert: readFileSync(process.env.TLS_CERTIFICATE), key: readFileSync(process.env.TLS_KEY) },
  provider.callback(),
).listen(Number(url.port), url.hostname, () => console.log('ready'));
