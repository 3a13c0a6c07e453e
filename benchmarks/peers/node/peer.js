// The peer in Node: Fastify takes the call, Aedes holds the devices, both in one process. No token is checked.
import { readFileSync } from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'
import { parseArgs } from 'node:util'
import { Aedes } from 'aedes'
import Fastify from 'fastify'

const text = { type: 'string' }
const { values: given } = parseArgs({
  options: { host: text, 'http-port': text, 'mqtt-port': text, certificate: text, key: text }
})
const secure = given.certificate && { cert: readFileSync(given.certificate), key: readFileSync(given.key) }

const ANSWER = '$iothub/methods/res/'
const waiting = new Map()
let lastRid = 0

const broker = await Aedes.createBroker({
  // The earliest place that sees a PUBLISH; a subscription or the "publish" event cost the same within noise.
  authorizePublish (client, packet, done) {
    if (packet.topic.startsWith(ANSWER)) {
      const rid = packet.topic.slice(packet.topic.indexOf('$rid=') + 5)
      const settle = waiting.get(rid)
      waiting.delete(rid)
      settle?.(`{"status":${parseInt(packet.topic.slice(ANSWER.length))},"payload":${packet.payload}}`)
    }
    done(null)
  }
})

const app = Fastify({ ...(secure && { https: secure }) })

app.post('/twins/:device/methods', (request, reply) => {
  const client = broker.clients[request.params.device]
  if (!client) return reply.code(404).send()
  const rid = (++lastRid).toString(16)
  waiting.set(rid, answer => reply.type('application/json; charset=utf-8').send(answer))
  client.publish({
    topic: `$iothub/methods/POST/${request.body.methodName}/?$rid=${rid}`,
    payload: JSON.stringify(request.body.payload),
    qos: 0
  }, error => { if (error) reply.code(500).send() })
})

const devices = secure ? tls.createServer(secure, broker.handle) : net.createServer(broker.handle)
devices.listen({ host: given.host, port: Number(given['mqtt-port']), backlog: 1024 })
await app.listen({ host: given.host, port: Number(given['http-port']) })
